// The machine's package mirror, as its own apt configuration states it (sources.list(5)), in both formats.

/**
 * One group of package sources.
 * @typedef {object} Source
 * @property {string[]} uris
 * @property {string[]} suites
 * @property {string[]} components
 * @property {Record<string, string>} fields further fields of the deb822 format, such as Signed-By, values as written there
 */

/**
 * Options of the one-line format whose deb822 name is not just its own with capitals.
 * @type {Record<string, string>}
 */
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

/**
 * @param {string} uri
 * @param {string | undefined} key a key file, or an inline key block
 * @returns {boolean} whether this is a mirror of the distribution
 */
function isArchive(uri, key) {
  if (uri.startsWith('cdrom:')) return false;
  if (!key) return /debian|ubuntu/i.test(uri);
  return /(debian|ubuntu)-archive/.test(key) || /\/(debian|debian-security|ubuntu|ubuntu-ports)\/?$/.test(uri);
}

/** Names under which a mirror keeps a release beside its codename. */
const releaseNames = ['stable', 'oldstable', 'testing', 'unstable', 'sid'];
const parts = /(-updates|-security|\/updates)?$/;

/**
 * The distribution's own archive, without third parties' archives (which may use the same suite names), without backports
 * and without other releases than the machine's.
 * @param {Source[]} sources
 * @param {string} codename of the release, such as 'bookworm'
 */
export function ownSources(sources, codename) {
  /** @type {Source[]} */
  const archive = [];
  for (const source of sources) {
    const components = source.components.filter((name) => name === 'main' || name === 'universe');
    const uris = source.uris.filter((uri) => isArchive(uri, source.fields['Signed-By']));
    if (components.length && uris.length) archive.push({ ...source, uris, components });
  }
  const ofSuites = (/** @type {string[]} */ names) =>
    archive
      .map((source) => ({
        ...source,
        suites: source.suites.filter((suite) => names.includes(suite.replace(parts, ''))),
      }))
      .filter((source) => source.suites.length);
  const own = ofSuites([codename]);
  return own.length ? own : ofSuites(releaseNames);
}

/**
 * The backports of the same mirror.
 * @param {Source[]} own
 * @returns {Source | null} null where the release has none (testing, unstable)
 */
export function backportsOf(own) {
  for (const source of own) {
    const suite = source.suites.find((name) => name.replace(parts, '') === name);
    if (suite && !['testing', 'unstable', 'sid'].includes(suite)) return { ...source, suites: [`${suite}-backports`] };
  }
  return null;
}

/**
 * A deb822 file of package sources that asks for nothing but package lists.
 * @param {Source[]} sources
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
