import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path/posix';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { parseKernel } from '../engine/index.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const files = trackedFiles();
const missing = files ? '' : ' (skipped: this is no git working tree)';

/** Files under version control that are there; null where git cannot say. */
function trackedFiles(): string[] | null {
  try {
    const list = execFileSync('git', ['ls-files', '-z'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return list.split('\0').filter((path) => path !== '' && existsSync(join(root, path)));
  } catch {
    return null;
  }
}

const floors: Record<string, number> = {
  engine: 1,
  tokenizers: 1,
  kernels: 2,
  model: 3,
  bench: 4,
  cli: 5,
  test: 6,
};
/** The rooms of a floor, lowest first; rooms on one line do not import each other. Files of the floor itself come last. */
const rooms: Record<string, readonly (readonly string[])[]> = {
  engine: [['files', 'adapters']],
  kernels: [['reference']],
  tokenizers: [],
  model: [['architecture', 'pretrained'], ['systems'], ['data'], ['policy'], ['training'], ['inspect'], ['report']],
  bench: [
    ['measure'],
    ['tabletop'],
    ['attention', 'kernels', 'step', 'tokenize', 'data'],
    ['verify', 'study'],
    ['explorer'],
  ],
  cli: [['setup']],
};
const house = [...Object.keys(floors), 'package.json', 'package-lock.json', 'tsconfig.json', 'README.md', 'LICENSE'];

const text = (path: string) => readFileSync(join(root, path), 'utf8');
const top = (path: string) => path.split('/')[0];

/** The imports of a source file, types and dynamic imports included, as written. */
function imported(path: string): { specifier: string; dynamic: boolean }[] {
  const source = text(path).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
  const all = (pattern: RegExp, dynamic: boolean) =>
    [...source.matchAll(pattern)].map((match) => ({ specifier: match[1], dynamic }));
  return [
    ...all(/^\s*(?:import|export)\b[^'"`;()]*?\bfrom\s*['"]([^'"]+)['"]/gm, false),
    ...all(/^\s*import\s*['"]([^'"]+)['"]/gm, false),
    ...all(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g, true),
    ...all(/\bimport\(\s*\/\*[^*]*\*\/\s*['"]([^'"]+)['"]\s*\)/g, true),
  ];
}

describe.skipIf(!files)(`structure${missing}`, () => {
  const sources = (files ?? []).filter((path) => /\.(tsx?|mjs)$/.test(path));
  const imports = new Map(
    sources.map((path) => {
      const own = imported(path)
        .filter(({ specifier }) => specifier.startsWith('.'))
        .map(({ specifier, dynamic }) => ({ target: normalize(join(dirname(path), specifier)), dynamic }));
      return [path, own];
    }),
  );

  test('the top level is the one of the design', () => {
    const entries = new Set(files!.map(top).filter((entry) => !entry.startsWith('.')));
    expect([...entries].filter((entry) => !house.includes(entry))).toEqual([]);
    expect(house.filter((entry) => !entries.has(entry))).toEqual([]);
  });

  test('imports name files that are there, with their ending', () => {
    const wrong = [...imports].flatMap(([path, own]) =>
      own.filter(({ target }) => !existsSync(join(root, target))).map(({ target }) => `${path} imports ${target}`),
    );
    expect([...imports.values()].flat().length).toBeGreaterThan(300);
    expect(wrong).toEqual([]);
  });

  test('a file imports from its own folder or a lower floor', () => {
    const upward = [...imports].flatMap(([path, own]) =>
      own
        .filter(({ target }) => top(target) !== top(path) && floors[top(target)] >= floors[top(path)])
        .map(({ target }) => `${path} imports ${target}`),
    );
    expect(upward).toEqual([]);
  });

  test('inside a floor a file imports from its own room or a lower one', () => {
    const unknown = sources.filter((path) => {
      const [floor, room, ...rest] = path.split('/');
      return rest.length > 0 && floor !== 'test' && !(rooms[floor] ?? []).flat().includes(room);
    });
    expect(unknown).toEqual([]);
    const roomOf = (path: string) => path.split('/').slice(1, -1)[0] ?? '';
    const height = (floor: string, room: string) => {
      const own = rooms[floor].findIndex((names) => names.includes(room));
      return own < 0 ? rooms[floor].length : own;
    };
    const upward = [...imports].flatMap(([path, own]) => {
      const [floor, room] = [top(path), roomOf(path)];
      if (floor === 'test' || !rooms[floor]) return [];
      return own
        .filter(({ target }) => top(target) === floor && roomOf(target) !== room)
        .filter(({ target }) => height(floor, roomOf(target)) >= height(floor, room))
        .map(({ target }) => `${path} imports ${target}`);
    });
    expect(upward).toEqual([]);
  });

  test('no circles of imports', () => {
    const state = new Map<string, 'open' | 'done'>();
    const circles: string[] = [];
    const visit = (path: string, trail: string[]) => {
      if (state.get(path) === 'open') circles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '));
      if (state.has(path)) return;
      state.set(path, 'open');
      for (const { target } of imports.get(path) ?? []) visit(target, [...trail, path]);
      state.set(path, 'done');
    };
    for (const path of sources) visit(path, []);
    expect(circles).toEqual([]);
  });

  test('what runs in a browser reaches no module of node by static imports', () => {
    const starts = sources.filter(
      // A file that ends in -node.ts is loaded by a dynamic import only.
      (path) => /^(engine|kernels|tokenizers)\/index\.ts$|^model\/(?!.*-node\.ts$)/.test(path),
    );
    const reachedFrom = (paths: readonly string[]) => {
      const reached = new Set<string>();
      const visit = (path: string) => {
        if (reached.has(path)) return;
        reached.add(path);
        for (const { target, dynamic } of imports.get(path) ?? []) if (!dynamic) visit(target);
      };
      paths.forEach(visit);
      return reached;
    };
    const reached = reachedFrom(starts);
    const { dependencies, optionalDependencies } = JSON.parse(text('package.json'));
    const known = Object.keys({ ...dependencies, ...optionalDependencies });
    const foreign = [...reached].flatMap((path) =>
      imported(path)
        .filter(({ specifier, dynamic }) => !specifier.startsWith('.') && !dynamic)
        .filter(({ specifier }) => !known.some((name) => specifier === name || specifier.startsWith(`${name}/`)))
        .map(({ specifier }) => `${path} imports ${specifier}`),
    );
    expect(reached.size).toBeGreaterThan(80);
    expect(foreign).toEqual([]);
    const page = sources.filter((path) => /^bench\/explorer\/(?!host\/)/.test(path));
    const ofNode = [...reachedFrom(page)].filter((path) =>
      imported(path).some(({ specifier, dynamic }) => specifier.startsWith('node:') && !dynamic),
    );
    expect(page.length).toBeGreaterThan(8);
    expect(ofNode).toEqual([]);
  });

  test('no source file above 500 lines, and the derivation of attention, forward and backward, not above 700', () => {
    const long = files!
      .filter((path) => /\.(ts|mjs|wgsl)$/.test(path))
      .map((path) => ({ path, lines: text(path).split('\n').length - 1 }))
      .filter(({ path, lines }) => lines > (path === 'kernels/attention.wgsl' ? 700 : 500));
    expect(long).toEqual([]);
  });

  test('what WGSL files have in common is one text: functions of one name and signature, structs and alternatives of one name', () => {
    /** Why a declaration has another text in each file. */
    const different: Record<string, string> = {
      'struct Shape': 'the uniform of a kernel',
      'struct Pair': 'attention.wgsl reads the scales of gradients with the pair',
      'fn inRun(at: Term) -> vec4<bool>': 'the software sibling of matmul has no step that begins beyond a run',
      'fn termsOfB(at: Term) -> vec4u': 'the software sibling of matmul reads a term beyond a run as another',
      'fn blockOfB(rows: vec4u, n: u32, dual: u32, at: Term) -> mat4x4f':
        'the software sibling of matmul does not mask such a term',
    };
    const copies = new Map<string, Map<string, string>>();
    const note = (name: string, path: string, declaration: string) =>
      copies.set(name, (copies.get(name) ?? new Map()).set(path, declaration.replace(/\s*\/\/.*$/gm, '')));
    for (const path of files!.filter((path) => path.endsWith('.wgsl'))) {
      const { alternatives } = parseKernel(path, text(path));
      for (const [, head, entry, kind, signature] of text(path).matchAll(
        /^((@compute.*\s)?(fn|struct) (\w+[^{]*?) *\{.*(?:\}(?: *\/\/.*)?$|\n(?: .*\n|\n)*\}$))/gm,
      ))
        if (!entry) note(`${kind} ${signature}`, path, head);
      for (const known of alternatives.values())
        for (const [name, declaration] of known) note(`${name}: ${/[^{]*/.exec(declaration)![0]}`, path, declaration);
    }
    const shared = [...copies].filter(([, { size }]) => size > 1);
    expect(shared.length).toBeGreaterThan(40);
    const unequal = shared.filter(([, byPath]) => new Set(byPath.values()).size > 1);
    expect(unequal.map(([name]) => name).sort()).toEqual(Object.keys(different).sort());
  });

  test('no line of WGSL above 140 columns', () => {
    const long = files!
      .filter((path) => path.endsWith('.wgsl'))
      .flatMap((path) =>
        text(path)
          .split('\n')
          .map((line, i) => ({ at: `${path}:${i + 1}`, columns: line.length })),
      )
      .filter(({ columns }) => columns > 140);
    expect(long).toEqual([]);
  });

  test('WGSL lies in kernels (and probes of the hardware in bench), each file beside the operation of its name', () => {
    const shaders = files!.filter((path) => path.endsWith('.wgsl'));
    expect(shaders.filter((path) => top(path) !== 'kernels')).toEqual([
      'bench/measure/bandwidth.wgsl',
      'bench/measure/fused-multiply-add.wgsl',
      'bench/measure/launch.wgsl',
      'engine/accumulate.wgsl',
    ]);
    const alone = shaders.filter((path) => {
      if (top(path) !== 'kernels') return false;
      const name = path.slice('kernels/'.length, -'.wgsl'.length);
      const [operation] = name.split('.');
      return !sources.includes(`kernels/${operation}.ts`) || !shaders.includes(`kernels/${operation}.wgsl`);
    });
    expect(shaders.length).toBeGreaterThan(20);
    expect(alone).toEqual([]);
  });
});
