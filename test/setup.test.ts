import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  backportsOf,
  ownSources,
  parseDeb822Sources,
  parseOneLineSources,
  renderSources,
} from '../cli/setup/apt-sources.mjs';
import { dependenciesMatch } from '../cli/setup/dependencies.mjs';
import { exclusively } from '../cli/setup/exclusive.mjs';
import { readAnswer } from '../cli/setup/find-adapter.mjs';
import { isTooOld } from '../cli/setup/node-version.mjs';
import { adviceFor, family, parseOsRelease } from '../engine/adapters/advice.mjs';
import { cacheFolder } from '../engine/adapters/cache-folder.mjs';
import {
  manifest,
  softwareEnvironment,
  softwareFolder,
  systemEnvironment,
} from '../engine/adapters/software-adapter.mjs';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const deb822 = `# see sources.list(5)
Types: deb
# a comment inside a stanza
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: ${keyring}

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: ${keyring}

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/debian
Suites: sid
Components: main
`;

describe('package sources of the machine', () => {
  test('the deb822 format: enabled stanzas of binary packages, with their further fields', () => {
    expect(parseDeb822Sources(deb822)).toEqual([
      {
        uris: ['http://mirror.example/debian'],
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main', 'contrib'],
        fields: { 'Signed-By': keyring },
      },
      {
        uris: ['http://mirror.example/debian-security'],
        suites: ['bookworm-security'],
        components: ['main'],
        fields: { 'Signed-By': keyring },
      },
    ]);
  });

  test('an inline key keeps its lines', () => {
    const stanza =
      'Types: deb\nURIs: http://mirror.example/ubuntu\nSuites: noble\nComponents: main\nSigned-By:\n -----BEGIN\n .\n AAAA\n';
    const [source] = parseDeb822Sources(stanza);
    expect(source.fields['Signed-By']).toBe('\n -----BEGIN\n .\n AAAA');
    expect(parseDeb822Sources(renderSources([source]))[0]).toEqual({
      ...source,
      fields: { ...source.fields, Targets: 'Packages' },
    });
  });

  test('the one-line format, with options, comments and what is not a source of binary packages', () => {
    const text = `# deb http://off.example/debian bookworm main
deb [ signed-by=${keyring} arch=amd64,arm64 ] http://mirror.example/debian bookworm main contrib # note
deb-src http://mirror.example/debian bookworm main
  deb\thttp://mirror.example/debian bookworm-updates main
`;
    expect(parseOneLineSources(text)).toEqual([
      {
        uris: ['http://mirror.example/debian'],
        suites: ['bookworm'],
        components: ['main', 'contrib'],
        fields: { 'Signed-By': keyring, Architectures: 'amd64 arm64' },
      },
      { uris: ['http://mirror.example/debian'], suites: ['bookworm-updates'], components: ['main'], fields: {} },
    ]);
  });

  test("the distribution's own archive, without third parties, discs, backports and other releases", () => {
    const text = `deb cdrom:[Debian 12]/ bookworm main
deb http://mirror.example/debian bookworm main contrib
deb http://mirror.example/debian bookworm-backports main
deb http://mirror.example/debian testing main
deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://packages.vendor.example/debian/12/prod bookworm main
deb https://apt.vendor.example bookworm main
deb https://download.vendor.example/linux/debian bookworm stable
deb [signed-by=${keyring}] https://proxy.example/mirror bookworm-security main
`;
    const own = ownSources(parseOneLineSources(text), 'bookworm');
    expect(own.map(({ uris, suites, components }) => [...uris, ...suites, ...components].join(' '))).toEqual([
      'http://mirror.example/debian bookworm main',
      'https://proxy.example/mirror bookworm-security main',
    ]);
  });

  test.each([
    [deb822, 'bookworm', 'bookworm-backports'],
    [deb822.replaceAll('bookworm', 'stable'), 'bookworm', 'stable-backports'],
    [deb822.replaceAll('bookworm', 'testing'), 'forky', undefined],
  ])('backports come from the mirror of the main suite (%#)', (text, codename, suite) => {
    const backports = backportsOf(ownSources(parseDeb822Sources(text), codename));
    expect(backports?.suites[0]).toBe(suite);
    expect(backports?.uris).toEqual(suite && ['http://mirror.example/debian']);
    expect(backports?.fields).toEqual(suite && { 'Signed-By': keyring });
  });
});

describe('advice', () => {
  const debian = parseOsRelease('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_CODENAME=bookworm\n');
  const mint = parseOsRelease(
    'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n',
  );
  const fedora = parseOsRelease("NAME='Fedora Linux'\nID=fedora\n");

  test('os-release names the release whose packages are used', () => {
    expect(debian).toEqual({ id: 'debian', like: [], codename: 'bookworm', name: 'Debian GNU/Linux 12 (bookworm)' });
    expect([family(debian), family(mint), family(fedora)]).toEqual(['debian', 'ubuntu', 'other']);
    expect(mint.codename).toBe('noble');
    expect(fedora).toMatchObject({ name: 'Fedora Linux', codename: '' });
  });

  test('each operating system has its own', () => {
    const alpine = parseOsRelease('ID=alpine\nNAME="Alpine Linux"\n');
    const messages = [
      adviceFor('darwin'),
      adviceFor('win32'),
      adviceFor('freebsd'),
      adviceFor('linux', debian),
      adviceFor('linux', mint),
      adviceFor('linux', fedora),
      adviceFor('linux', alpine),
      adviceFor('linux'),
    ];
    expect(new Set(messages).size).toBe(messages.length);
    for (const message of messages) expect(message).not.toMatch(/undefined|\n/);
    expect(adviceFor('linux', debian)).toContain('apt install');
    expect(adviceFor('linux', fedora)).toContain('dnf install');
    expect(adviceFor('linux', alpine)).toContain('glibc');
  });
});

describe('the environment of a program', () => {
  const folder = softwareFolder();

  test('the software adapter is set, and LD_LIBRARY_PATH keeps what the user put there', () => {
    const bare = softwareEnvironment({ PATH: '/bin' }, folder);
    expect(bare).toEqual({
      PATH: '/bin',
      VK_ICD_FILENAMES: manifest(folder),
      LD_LIBRARY_PATH: join(folder, 'lib'),
      XDG_RUNTIME_DIR: join(folder, 'run'),
    });
    const own = { LD_LIBRARY_PATH: '/opt/lib', XDG_RUNTIME_DIR: '/run/user/7' };
    expect(softwareEnvironment(own, folder)).toMatchObject({
      LD_LIBRARY_PATH: `${join(folder, 'lib')}:/opt/lib`,
      XDG_RUNTIME_DIR: '/run/user/7',
    });
  });

  test.each(['VK_ICD_FILENAMES', 'VK_DRIVER_FILES'])('a driver chosen in %s is left alone', (name) => {
    const chosen = { [name]: '/opt/driver.json' };
    expect(softwareEnvironment(chosen, folder)).toEqual(chosen);
    expect(systemEnvironment(chosen)).toBeNull();
  });

  test('taking the software adapter out again gives back what was there', () => {
    const own = { PATH: '/bin', LD_LIBRARY_PATH: '/opt/lib', XDG_RUNTIME_DIR: '/run/user/7' };
    expect(systemEnvironment(softwareEnvironment(own, folder))).toEqual(own);
  });

  test('the cache folder follows the user and the platform; a relative one does not count', () => {
    expect(cacheFolder({ XDG_CACHE_HOME: '/big/cache' }, 'linux', '/home/a')).toBe('/big/cache/insula');
    expect(cacheFolder({ XDG_CACHE_HOME: 'cache' }, 'linux', '/home/a')).toBe('/home/a/.cache/insula');
    expect(cacheFolder({}, 'darwin', '/Users/a')).toBe('/Users/a/.cache/insula');
    expect(cacheFolder({ LOCALAPPDATA: '/local' }, 'win32', '/Users/a')).toBe('/local/insula');
  });
});

describe('dependencies', () => {
  const lock = {
    packages: {
      '': { name: 'insula' },
      'node_modules/a': { version: '1.0.0' },
      'node_modules/b': { version: '2.0.0' },
      'node_modules/other-platform': { version: '2.0.0', optional: true },
    },
  };
  const match = (installed: Record<string, object>) =>
    dependenciesMatch(JSON.stringify(lock), JSON.stringify({ packages: installed }));
  const a = { version: '1.0.0' };
  const b = { version: '2.0.0' };

  test('match where every package of this platform has its version', () => {
    expect(match({ 'node_modules/a': a, 'node_modules/b': b })).toBe(true);
    expect(match({ 'node_modules/a': a, 'node_modules/b': b, 'node_modules/other-platform': b })).toBe(true);
  });

  test('match without an optional package of another one, and not without one of our own', () => {
    const own = structuredClone(lock);
    Object.assign(own.packages[''], { optionalDependencies: { 'other-platform': '^2.0.0' } });
    const installed = { packages: { 'node_modules/a': a, 'node_modules/b': b } };
    expect(dependenciesMatch(JSON.stringify(own), JSON.stringify(installed))).toBe(false);
  });

  test('do not match where one is missing, of another version, or too many, or the list is cut off', () => {
    expect(match({ 'node_modules/a': a })).toBe(false);
    expect(match({ 'node_modules/a': a, 'node_modules/b': { version: '2.0.1' } })).toBe(false);
    expect(match({ 'node_modules/a': a, 'node_modules/b': b, 'node_modules/c': b })).toBe(false);
    expect(dependenciesMatch(JSON.stringify(lock), '{"packages": {')).toBe(false);
  });
});

describe('node', () => {
  test.each([
    ['18.20.8', true],
    ['20.18.3', true],
    ['20.19.0', false],
    ['22.0.0', false],
    ['100.1.0', false],
  ])('%s is too old: %s', (version, tooOld) => {
    expect(isTooOld(version)).toBe(tooOld);
  });

  test('the oldest is the one of package.json', () => {
    const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
    const oldest = /^>=(\d+)\.(\d+)$/.exec(engines.node)!.slice(1).map(Number);
    expect(isTooOld(`${oldest[0]}.${oldest[1]}.0`)).toBe(false);
    expect(isTooOld(`${oldest[0]}.${oldest[1] - 1}.9`)).toBe(true);
  });
});

describe('files of the set-up', () => {
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'insula-setup-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test('a lock of a process that is gone does not hold, and is given back after an error', () => {
    const path = join(folder, 'setup.lock');
    const gone = spawnSync(process.execPath, ['-e', '']).pid;
    const inside: string[] = [];
    const waiting = () => inside.push('waited');
    writeFileSync(path, `${gone}`);
    exclusively(path, waiting, () => inside.push(readFileSync(path, 'utf8')));
    expect(inside).toEqual([`${process.pid}`]);
    if (process.platform === 'linux') {
      writeFileSync(path, `${process.pid}`); // by its time, of another process that had the same number
      utimesSync(path, 0, 0);
      exclusively(path, waiting, () => inside.push('taken'));
      expect(inside.slice(1)).toEqual(['taken']);
    }
    expect(() =>
      exclusively(path, waiting, () => {
        throw new Error('no space');
      }),
    ).toThrow('no space');
    expect(existsSync(path)).toBe(false);
  });

  test('the adapter that is remembered counts only where the file is whole', () => {
    const path = join(folder, 'adapter.json');
    const whole = { key: 'k', found: { adapter: 'software', description: 'llvmpipe' } };
    const damaged = [
      ...['', '{', 'null', '[]', '{"key":"k"}', '{"key":"k","found":null}'],
      JSON.stringify({ ...whole, key: 1 }),
      JSON.stringify({ ...whole, found: { adapter: 'none', reason: 'x' } }),
      JSON.stringify({ ...whole, found: { adapter: 'system' } }),
    ];
    expect(readAnswer(path)).toBeNull();
    for (const text of damaged) {
      writeFileSync(path, text);
      expect(readAnswer(path), text).toBeNull();
    }
    writeFileSync(path, JSON.stringify(whole));
    expect(readAnswer(path)).toEqual(whole);
  });
});
