// The machine's package mirror, as its own apt configuration states it (sources.list(5)), in both formats.

/**
 * One group of package sources.
 * @typedef {object} Source
 * @property {string[]} uris
 * @property {string[]} suites
 * @property {string[]} components
 * @property {Record<string, string>} fields further fields of the deb822 format, such as Signed-By, values as written there
 */

/** Options of the one-line format whose deb822 name is not just its own with capitals. */
/** @type {Record<string, string>} */
const optionNames = { arch: 'Architectures', lang: 'Languages', target: 'Targets' };

/**
 * The one-line format: `deb [option=value ...] uri suite component ...`.
 * @param {string} text
 * @returns {Source[]} binary packages only
 */
export function parseOneLineSources(text) {
  const sources = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (!match) continue;
    /** @type {Record<string, string>} */
    const fields = {};
    for (const option of (match[1] ?? '').split(/\s+/).filter((word) => word)) {
      const [name, value] = option.split(/=(.*)/s);
      const title = optionNames[name] ?? name.replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase());
      fields[title] = value.replaceAll(',', ' ');
    }
    const components = match[4].split(/\s+/).filter((word) => word);
    sources.push({ uris: [match[2]], suites: [match[3]], components, fields });
  }
  return sources;
}

/**
 * The deb822 format: stanzas of `Field: value` with continuation lines.
 * @param {string} text
 * @returns {Source[]} binary packages of enabled stanzas only
 */
export function parseDeb822Sources(text) {
  const sources = [];
  const lines = text.split('\n').filter((line) => !line.startsWith('#'));
  for (const stanza of lines.join('\n').split(/\n\s*\n/)) {
    /** @type {Record<string, string>} */
    const fields = {};
    let name = '';
    for (const line of stanza.split('\n')) {
      const match = /^([A-Za-z][\w-]*):\s*(.*)$/.exec(line);
      if (match) {
        name = match[1].toLowerCase().replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase());
        fields[name] = match[2].trim();
      } else if (name && /^\s/.test(line)) fields[name] += `\n${line}`;
    }
    const { Types = '', Uris = '', Suites = '', Components = '', Enabled = 'yes', ...rest } = fields;
    if (!words(Types).includes('deb') || /^(no|false|off|0)$/i.test(Enabled)) continue;
    sources.push({ uris: words(Uris), suites: words(Suites), components: words(Components), fields: rest });
  }
  return sources;
}

/** @param {string} text */
const words = (text) => text.split(/\s+/).filter((word) => word);

const releaseNames = ['stable', 'oldstable', 'testing', 'unstable', 'sid'];

/**
 * The distribution's own archive, without third parties' archives (which may use the same suite names) and without backports.
 * @param {Source[]} sources
 * @param {string} codename of the release, such as 'bookworm'
 * @returns {Source[]}
 */
export function ownSources(sources, codename) {
  const suite = new RegExp(`^(${[codename, ...releaseNames].join('|')})(-updates|-security|/updates)?$`);
  const own = [];
  for (const source of sources) {
    const suites = source.suites.filter((name) => suite.test(name));
    const components = source.components.filter((name) => name === 'main' || name === 'universe');
    const key = source.fields['Signed-By'];
    // An inline key block names no file; then, as without a key, the address tells.
    const named = key && !key.includes('\n') ? key : undefined;
    const uris = source.uris.filter(
      (uri) => /(debian|ubuntu)[-.]archive/.test(named ?? '') || (!named && /debian|ubuntu/i.test(uri)),
    );
    const reachable = uris.filter((uri) => !uri.startsWith('cdrom:'));
    if (suites.length && components.length && reachable.length)
      own.push({ ...source, uris: reachable, suites, components });
  }
  return own;
}

/**
 * The backports of the same mirror.
 * @param {Source[]} own
 * @param {string} codename
 * @returns {Source | null} null where the release has none (testing, unstable)
 */
export function backportsOf(own, codename) {
  for (const source of own) {
    const suite = source.suites.find((name) => [codename, 'stable', 'oldstable'].includes(name));
    if (suite && source.suites.every((name) => !['testing', 'unstable', 'sid'].includes(name)))
      return { ...source, suites: [`${suite}-backports`] };
  }
  return null;
}

/**
 * A deb822 file of package sources that asks for nothing but package lists.
 * @param {Source[]} sources
 * @returns {string}
 */
export function renderSources(sources) {
  const stanzas = sources.map(({ uris, suites, components, fields }) => {
    const all = {
      Types: 'deb',
      URIs: uris.join(' '),
      Suites: suites.join(' '),
      Components: components.join(' '),
      ...fields,
      Targets: 'Packages',
    };
    return Object.entries(all)
      .map(([name, value]) => `${name}: ${value}\n`)
      .join('');
  });
  return stanzas.join('\n');
}
