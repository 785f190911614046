// Mesa's software adapter (lavapipe) for a Debian or Ubuntu machine, out of its own package mirror and into the user's cache
// folder: apt works on package lists of its own, nothing is installed, and nothing outside that folder changes.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { cacheFolder } from '../../engine/adapters/cache-folder.mjs';
import { manifest, softwareEnvironment, softwareFolder } from '../../engine/adapters/software-adapter.mjs';
import { backportsOf, ownSources, parseDeb822Sources, parseOneLineSources, renderSources } from './apt-sources.mjs';
import { checkAdapter } from './find-adapter.mjs';

const OLDEST_MESA = 23; // Dawn opens no adapter on the lavapipe of Mesa 22
/** The C and C++ runtimes are the system's own: a second copy of them in one process cannot work. */
const systemPackages = /^(libc6|libgcc-s1|libstdc\+\+6|gcc-\d+-base)$/;

/**
 * @param {string} command
 * @param {string[]} options
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv }} [settings]
 * @returns {string} standard output
 */
function run(command, options, settings = {}) {
  const env = { ...(settings.env ?? process.env), LC_ALL: 'C' };
  const result = spawnSync(command, options, { ...settings, env, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (result.status === 0) return result.stdout;
  if (result.signal === 'SIGINT') throw new Error('interrupted');
  if (result.error && 'code' in result.error && result.error.code === 'ENOENT')
    throw new Error(`${command} is not installed`);
  const lines = (result.stderr ?? '').split('\n').filter((line) => /^[EW]:|rror/.test(line));
  const why =
    result.error?.message ?? lines[0]?.replace(/^[EW]:\s*/, '') ?? result.signal ?? `exit status ${result.status}`;
  throw new Error(`${command} failed: ${why}`);
}

/** @returns {import('./apt-sources.mjs').Source[]} of every apt source file that this user can read */
function machineSources() {
  const folder = '/etc/apt/sources.list.d';
  const files = ['/etc/apt/sources.list'];
  if (fs.existsSync(folder)) files.push(...fs.readdirSync(folder).map((name) => join(folder, name)));
  return files.flatMap((file) => {
    const parse = file.endsWith('.sources') ? parseDeb822Sources : file.endsWith('.list') ? parseOneLineSources : null;
    try {
      return parse ? parse(fs.readFileSync(file, 'utf8')) : [];
    } catch {
      return []; // absent, or readable by root only
    }
  });
}

/** apt with lists, cache and package status of its own. The machine's proxy and credentials stay in force. */
class Apt {
  /**
   * @param {string} folder for all that apt writes
   * @param {string} architecture as dpkg names it
   */
  constructor(folder, architecture) {
    this.folder = folder;
    this.configuration = join(folder, 'apt.conf');
    for (const part of ['lists/partial', 'cache/archives/partial', 'sources', 'log'])
      fs.mkdirSync(join(folder, part), { recursive: true });
    // With an empty package status, apt resolves all that the driver needs, whatever the state of the machine's packages.
    fs.writeFileSync(join(folder, 'status'), '');
    const hooks = ['Pre-Invoke', 'Post-Invoke', 'Post-Invoke-Success'];
    const lines = [
      ...hooks.map((hook) => `#clear APT::Update::${hook};`),
      '#clear APT::Architectures;',
      '#clear Acquire::Languages;',
      `APT::Architectures { "${architecture}"; };`,
      'Acquire::Languages { "none"; };',
      'Acquire::Retries "2";',
      'Acquire::http::Timeout "15";',
      'Acquire::https::Timeout "15";',
      'APT::Update::Error-Mode "any";',
      'APT::Sandbox::User "root";',
      'Dir::Etc::SourceList "/dev/null";',
      `Dir::Etc::SourceParts "${folder}/sources";`,
      'Dir::Etc::Preferences "/dev/null";',
      'Dir::Etc::PreferencesParts "/dev/null";',
      `Dir::State::Lists "${folder}/lists";`,
      `Dir::State::Status "${folder}/status";`,
      `Dir::State::Extended_States "${folder}/extended_states";`,
      `Dir::Cache "${folder}/cache";`,
      `Dir::Log "${folder}/log";`,
      'Debug::NoLocking "true";',
    ];
    fs.writeFileSync(this.configuration, `${lines.join('\n')}\n`);
  }

  /** @param {import('./apt-sources.mjs').Source[]} sources */
  update(sources) {
    fs.writeFileSync(join(this.folder, 'sources', 'insula.sources'), renderSources(sources));
    this.get(['update', '-q']);
  }

  /** @param {string[]} options */
  get(options) {
    return run('apt-get', ['-c', this.configuration, ...options], { cwd: this.folder });
  }

  /** @returns {string} the newest version of the driver's package in the lists, '' where there is none */
  driverVersion() {
    const listing = run('apt-cache', ['-c', this.configuration, 'madison', 'mesa-vulkan-drivers']);
    return listing.split('|')[1]?.trim() ?? '';
  }

  /**
   * @param {string} release to prefer, '' for none
   * @returns {Map<string, string>} version by name of every package that the driver and the Vulkan loader need
   */
  closure(release) {
    const prefer = release ? ['-t', release] : [];
    const packages = ['mesa-vulkan-drivers', 'libvulkan1'];
    const plan = this.get(['install', '--simulate', '--no-install-recommends', ...prefer, ...packages]);
    return new Map([...plan.matchAll(/^Inst (\S+) (?:\[\S+\] )?\((\S+)/gm)].map((match) => [match[1], match[2]]));
  }
}

/**
 * @param {Map<string, string>} wanted version by package
 * @returns {string[]} `name=version` of those that the system lacks or has in an older version
 */
function missingPackages(wanted) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own placeholders
  const listing = run('dpkg-query', ['-W', '-f', '${db:Status-Abbrev} ${Package} ${Version}\n']);
  const installed = new Map([...listing.matchAll(/^ii\s+(\S+) (\S+)$/gm)].map((match) => [match[1], match[2]]));
  const missing = [];
  for (const [name, version] of wanted) {
    const present = installed.get(name);
    if (systemPackages.test(name)) continue;
    if (present && spawnSync('dpkg', ['--compare-versions', present, 'ge', version]).status === 0) continue;
    missing.push(`${name}=${version}`);
  }
  return missing;
}

/**
 * Copies the driver, the Vulkan loader and every library they need that the system does not have into `folder`/lib.
 * @param {string} unpacked root of the unpacked packages
 * @param {string} folder
 */
function assemble(unpacked, folder) {
  const listed = /** @type {string[]} */ (fs.readdirSync(unpacked, { recursive: true }));
  const driver = listed.find((path) => path.endsWith('/libvulkan_lvp.so'));
  const icd = listed.find((path) => /\/lvp_icd[^/]*\.json$/.test(path));
  if (!driver || !icd) throw new Error('the package mesa-vulkan-drivers holds no lavapipe driver');
  const triplet = join(driver, '..').split('/').at(-1) ?? '';
  const places = ['usr/lib', 'lib'].map((place) => join(unpacked, place, triplet));
  const env = { ...process.env, LD_LIBRARY_PATH: places.join(':') };
  const roots = [join(unpacked, driver), join(places[0], 'libvulkan.so.1')].filter((path) => fs.existsSync(path));
  const resolved = roots.map((path) => run('ldd', [path], { env })).join('\n');
  const lacking = [...resolved.matchAll(/^\s*(\S+) => not found/gm)].map((match) => match[1]);
  if (lacking.length) throw new Error(`no package holds ${lacking.join(', ')}`);
  const needed = [...resolved.matchAll(/=> (\/\S+)/g)]
    .map((match) => match[1])
    .filter((path) => path.startsWith(unpacked));

  const libraries = join(folder, 'lib');
  fs.mkdirSync(libraries);
  for (const path of new Set([...roots, ...needed]))
    fs.copyFileSync(path, join(libraries, path.split('/').at(-1) ?? ''));
  fs.mkdirSync(join(folder, 'run'), { mode: 0o700 });
  const { ICD } = JSON.parse(fs.readFileSync(join(unpacked, icd), 'utf8'));
  const entry = { file_format_version: '1.0.0', ICD: { ...ICD, library_path: './lib/libvulkan_lvp.so' } };
  fs.writeFileSync(manifest(folder), `${JSON.stringify(entry, null, 2)}\n`);
}

/**
 * Fetches, checks and publishes the software adapter; one process at a time (see exclusive.mjs).
 * Throws, with nothing left behind, where that fails.
 * @param {import('../../engine/adapters/advice.mjs').OsRelease} release
 * @param {(line: string) => void} print
 * @returns {string} the adapter's description
 */
export function fetchLavapipe(release, print) {
  const own = ownSources(machineSources(), release.codename);
  if (!own.length) throw new Error(`no package mirror for ${release.codename || release.name} is named in /etc/apt`);
  const staging = join(cacheFolder(), `staging-${hostname()}`);
  fs.rmSync(staging, { recursive: true, force: true }); // of a set-up that was killed
  fs.mkdirSync(staging, { recursive: true });
  try {
    const apt = new Apt(staging, run('dpkg', ['--print-architecture']).trim());
    const name = (/** @type {import('./apt-sources.mjs').Source[]} */ sources) =>
      sources.map(({ uris, suites }) => `${uris.join(' ')} (${suites.join(', ')})`).join(', ');
    print(`fetching package lists from ${name(own)}`);
    apt.update(own);
    const backports = backportsOf(own);
    let preferred = '';
    if (Number.parseInt(apt.driverVersion(), 10) < OLDEST_MESA && backports) {
      print(`Mesa ${apt.driverVersion()} is too old; fetching package lists from ${name([backports])}`);
      apt.update([...own, backports]);
      preferred = backports.suites[0];
    }
    const version = apt.driverVersion();
    if (!(Number.parseInt(version, 10) >= OLDEST_MESA))
      throw new Error(
        `the newest Mesa for ${release.name} is ${version || 'absent'}, and Insula needs ${OLDEST_MESA} or later`,
      );

    const packages = missingPackages(apt.closure(preferred));
    const sizes = [...apt.get(['download', '--print-uris', ...packages]).matchAll(/^'\S+' \S+ (\d+)/gm)];
    const megabytes = sizes.reduce((sum, match) => sum + Number(match[1]), 0) / 1e6;
    print(`fetching ${packages.length} packages, ${megabytes.toFixed(0)} MB: ${packages.join(' ')}`);
    apt.get(['download', ...packages]);
    const unpacked = join(staging, 'root');
    for (const file of fs.readdirSync(staging).filter((entry) => entry.endsWith('.deb')))
      run('dpkg-deb', ['-x', join(staging, file), unpacked]);

    const folder = join(staging, 'lavapipe');
    fs.mkdirSync(folder);
    assemble(unpacked, folder);
    const answer = checkAdapter(softwareEnvironment(process.env, folder));
    if ('reason' in answer) throw new Error(`the software adapter was fetched, but it does not open: ${answer.reason}`);
    // What was there before goes into the staging folder, and away with it.
    if (fs.existsSync(softwareFolder())) fs.renameSync(softwareFolder(), join(staging, 'old'));
    fs.renameSync(folder, softwareFolder());
    return answer.description;
  } finally {
    fs.rmSync(staging, { recursive: true, force: true });
  }
}
