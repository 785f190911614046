// Refuses a node that is too old, in one line. The files that people start import it before anything else, and it is
// written so that an old node can read it.

/**
 * @param {string} version of node, such as '20.19.0'
 * @returns {boolean} whether it is older than package.json asks for
 */
export function isTooOld(version) {
  const [major, minor] = version.split('.').map(Number);
  return major < 20 || (major === 20 && minor < 19);
}

if (isTooOld(process.versions.node)) {
  console.error(`Insula needs node 20.19 or later, and this is node ${process.versions.node} (${process.execPath})`);
  process.exit(1);
}
