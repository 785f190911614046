/**
 * Loading and specialising `.wgsl` files. A file is valid as it stands; only one-line declarations marked `// @param` are replaced.
 * The alternatives of a declaration stand below it, named: `// @or NAME  declaration`. A long one goes on in more lines of that name;
 * one that has several names lists them: `// @or f16, bf16  declaration`.
 *
 * Where a device has more than the file asks for, the text changes in two places. The op parameters (the uniform) become immediates if
 * they fit: `var<immediate>` takes the place of `@group(0) @binding(0) var<uniform>`. A kernel made for subgroups of one size gets
 * `@subgroup_size`.
 */

interface Binding {
  readonly index: number;
  readonly space: 'uniform' | 'read' | 'read_write';
  readonly type: string;
}

export interface Kernel {
  readonly name: string;
  readonly source: string;
  readonly bindings: ReadonlyMap<string, Binding>;
  /** Fields of each struct in order, for packing uniforms. */
  readonly structs: ReadonlyMap<string, readonly { name: string; type: string }[]>;
  readonly entryPoints: readonly string[];
  /** Names of the declarations that may be replaced. */
  readonly parameters: readonly string[];
  /** For each parameter that has alternatives, their declarations by name. */
  readonly alternatives: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

/**
 * A number replaces the value of `const NAME`; a string names the alternative that replaces a declaration, or is a whole declaration
 * itself, for expressions of the user's. Two names declare nothing: `enable` lists WGSL extensions, and `subgroupSize` is the
 * number of lanes that the subgroups of a kernel with subgroup operations must have.
 */
export type Parameters = Readonly<Record<string, number | string>>;

/** The features of a device that WebGPU's floor lacks. */
export interface CompilerTarget {
  /** The most bytes of a kernel's immediates; 0 without any. */
  readonly immediateBytes: number;
  /** WebGPU's feature 'subgroup-size-control'. */
  readonly subgroupSizeControl: boolean;
}

const floor: CompilerTarget = { immediateBytes: 0, subgroupSizeControl: false };

const parameterLine = /^(?:const|alias|fn)\s+(\w+)\b.*\/\/ @param.*$/;
const alternativeLine = /^\/\/ @or (\w+(?:, \w+)*)\s+(.+)$/;

const loaded = new Map<string, Kernel>();

/** Every kernel that was loaded, by its name, as shipped: its source, changed, makes one for `Device.withKernels`. */
export const loadedKernels: ReadonlyMap<string, Kernel> = loaded;

/** Reads a kernel file: from disk under node, over HTTP in a browser. */
export async function loadKernel(url: URL): Promise<Kernel> {
  const name = kernelName(url);
  const kernel = parseKernel(name, await readSource(name, url));
  loaded.set(name, kernel);
  return kernel;
}

async function readSource(name: string, url: URL): Promise<string> {
  if (url.protocol === 'file:') {
    const module = 'node:fs/promises'; // a variable, so that a bundler for browsers leaves it alone
    const { readFile } = (await import(/* @vite-ignore */ module)) as typeof import('node:fs/promises');
    return readFile(url, 'utf8');
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`kernel ${name}: ${url} answered ${response.status}`);
  if (response.headers.get('content-type')?.startsWith('text/html'))
    throw new Error(
      `kernel ${name}: ${url} is a web page: the file is not served beside its module (Vite 7 and older need optimizeDeps: { exclude: ['insula'] })`,
    );
  return response.text();
}

/** The file's name, without its ending and without the hash that a bundler puts before it. */
export function kernelName({ pathname }: URL): string {
  const file = pathname.slice(pathname.lastIndexOf('/') + 1);
  return file.replace(/(-(?=.*[A-Z\d_])[\w-]{8})?\.wgsl$/, ''); // kernels are named in small letters, hashes hardly ever are
}

export function parseKernel(name: string, source: string): Kernel {
  const bindings = new Map<string, Binding>();
  for (const match of source.matchAll(/@group\(0\)\s*@binding\((\d+)\)\s*var<([^>]+)>\s*(\w+)\s*:\s*([^;]+);/g)) {
    const space = match[2].includes('uniform') ? 'uniform' : match[2].includes('read_write') ? 'read_write' : 'read';
    bindings.set(match[3], { index: Number(match[1]), space, type: match[4].trim() });
  }
  const structs = new Map<string, { name: string; type: string }[]>();
  for (const match of source.matchAll(/^struct\s+(\w+)\s*\{([^}]*)\}/gm)) {
    const body = match[2].replace(/\/\/.*$/gm, '');
    const fields = [...body.matchAll(/(\w+)\s*:\s*([\w<>]+)/g)].map((field) => ({ name: field[1], type: field[2] }));
    structs.set(match[1], fields);
  }
  const entryPoints = [...source.matchAll(/@compute[^{]*?\bfn\s+(\w+)/g)].map((match) => match[1]);
  const parameters = source.split('\n').flatMap((line) => parameterLine.exec(line)?.[1] ?? []);
  return { name, source, bindings, structs, entryPoints, parameters, alternatives: alternativesIn(name, source) };
}

function alternativesIn(kernel: string, source: string): Map<string, Map<string, string>> {
  const alternatives = new Map<string, Map<string, string>>();
  let parameter: string | undefined;
  let previous: string | undefined;
  source.split('\n').forEach((line, index) => {
    const [, names, text] = alternativeLine.exec(line) ?? [];
    if (names === undefined) parameter = parameterLine.exec(line)?.[1];
    for (const name of names?.split(', ') ?? []) {
      const fail = (what: string) => new Error(`kernel ${kernel}, line ${index + 1}: ${what}`);
      if (parameter === undefined) throw fail(`no @param declaration stands above the alternative '${name}'`);
      const known = alternatives.get(parameter) ?? new Map<string, string>();
      if (names !== previous && known.has(name)) throw fail(`${parameter} has an alternative '${name}' already`);
      if (names !== previous && !declares(text, parameter)) throw fail(`'${name}' does not declare ${parameter}`);
      known.set(name, names === previous ? `${known.get(name)} ${text}` : text);
      alternatives.set(parameter, known);
    }
    previous = names;
  });
  return alternatives;
}

function declares(declaration: string, name: string): boolean {
  return new RegExp(`^(?:const|alias|fn)\\s+${name}\\b`).test(declaration);
}

/** The kernel's text with `parameters` in place of the marked declarations, as `target` compiles it. */
export function specialise(kernel: Kernel, parameters: Parameters, target = floor): string {
  const { enable, subgroupSize } = parameters;
  for (const name of Object.keys(parameters)) {
    if (!['enable', 'subgroupSize'].includes(name) && !kernel.parameters.includes(name))
      throw new Error(`kernel ${kernel.name}: '${name}' is not a parameter; it has ${kernel.parameters.join(', ')}`);
  }
  const lines = kernel.source.split('\n').map((line) => {
    const name = parameterLine.exec(line)?.[1];
    if (name === undefined || parameters[name] === undefined) return line;
    const value = parameters[name];
    if (typeof value === 'number') return replaceConstant(kernel, line, value);
    const known = kernel.alternatives.get(name);
    const declaration = known?.get(value) ?? value;
    if (!declares(declaration, name)) {
      const names = known ? `its alternatives are ${[...known.keys()].join(', ')}` : 'it has no alternatives';
      throw new Error(`kernel ${kernel.name}: '${value}' does not declare ${name}; ${names}`);
    }
    return declaration;
  });
  const sized =
    subgroupSize !== undefined && (target.subgroupSizeControl ? 'subgroups, subgroup_size_control' : 'subgroups');
  const extensions = [enable, sized].filter((names) => names).join(', ');
  // On the first line, so that the lines of a compiler's messages are those of the file.
  if (extensions) lines[0] = `enable ${extensions}; ${lines[0]}`;
  let code = lines.join('\n');
  if (sized && target.subgroupSizeControl)
    code = code.replaceAll('@compute', `@subgroup_size(${subgroupSize}) @compute`);
  if (parametersFit(kernel, target.immediateBytes)) code = code.replace(uniformDeclaration, 'var<immediate>');
  return code;
}

const uniformDeclaration = /@group\(0\)\s*@binding\(\d+\)\s*var<uniform>/;

/** Whether a kernel has op parameters, and they take at most `bytes`. */
function parametersFit(kernel: Kernel, bytes: number): boolean {
  const fields = kernel.structs.get(uniformOf(kernel)?.type ?? '');
  return fields !== undefined && packedBytes(fields.length) <= bytes;
}

/** The op parameters of a kernel, with their name. */
function uniformOf(kernel: Kernel): (Binding & { readonly name: string }) | null {
  const declared = [...kernel.bindings].find(([, { space }]) => space === 'uniform');
  return declared ? { name: declared[0], ...declared[1] } : null;
}

/** Uniform structs take whole groups of four scalars. */
const packedBytes = (scalars: number) => Math.ceil(scalars / 4) * 16;

function replaceConstant(kernel: Kernel, line: string, value: number): string {
  const match = /^(const\s+(\w+)\s*:\s*(u32|i32|f32)\s*=\s*)[^;]+;/.exec(line);
  if (!match) throw new Error(`kernel ${kernel.name}: a number cannot replace: ${line}`);
  const [, declaration, name, type] = match;
  if (!holds(type, value)) throw new Error(`kernel ${kernel.name}: ${name}: ${type} cannot hold ${value}`);
  return `${declaration}${value}${type[0]};`;
}

/** Whether a scalar of WGSL can hold a number; infinities and NaN never. */
function holds(type: string, value: number): boolean {
  if (type === 'f32') return Number.isFinite(Math.fround(value));
  if (type === 'i32') return Number.isInteger(value) && value >= -(2 ** 31) && value < 2 ** 31;
  return type === 'u32' && Number.isInteger(value) && value >= 0 && value < 2 ** 32;
}

/** The values of a uniform struct, and where it is bound. */
export interface UniformData {
  readonly name: string;
  readonly index: number;
  readonly bytes: ArrayBuffer;
}

/** Packs the values of the kernel's uniform struct of 4-byte scalars; throws when a field is missing, unknown or out of range. */
export function uniformData(kernel: Kernel, values: Readonly<Record<string, number>>): UniformData {
  const declared = uniformOf(kernel);
  if (!declared) throw new Error(`kernel ${kernel.name}: no uniform binding`);
  const { name, index, type: struct } = declared;
  const fields = kernel.structs.get(struct);
  if (!fields) throw new Error(`kernel ${kernel.name}: no struct ${struct}`);
  const unknown = Object.keys(values).filter((given) => !fields.some((field) => field.name === given));
  if (unknown.length > 0) throw new Error(`kernel ${kernel.name}: ${struct} has no field ${unknown.join(', ')}`);
  const view = new DataView(new ArrayBuffer(packedBytes(fields.length)));
  fields.forEach(({ name: field, type }, place) => {
    const value = values[field];
    if (value === undefined) throw new Error(`kernel ${kernel.name}: ${struct}.${field} is missing`);
    if (!holds(type, value)) throw new Error(`kernel ${kernel.name}: ${struct}.${field}: ${type} cannot hold ${value}`);
    if (type === 'f32') view.setFloat32(place * 4, value, true);
    else if (type === 'i32') view.setInt32(place * 4, value, true);
    else view.setUint32(place * 4, value, true);
  });
  return { name, index, bytes: view.buffer };
}
