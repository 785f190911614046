import type { AsyncErrors } from './async-errors.ts';
import { type CompilerTarget, type Kernel, type Parameters, specialise } from './kernel.ts';

const bufferTypes = { uniform: 'uniform', read: 'read-only-storage', read_write: 'storage' } as const;

/** An entry point with its parameters: compiled when it is first needed, or beforehand, beside others. */
export class Pipeline {
  /** It has run once, on nothing. */
  warm = false;
  private made: GPUComputePipeline | null = null;
  private making: Promise<void> | null = null;

  constructor(
    private readonly gpu: GPUDevice,
    private readonly errors: AsyncErrors,
    /** The kernel, the entry point and the parameters as JSON, with a space between. */
    readonly label: string,
    private readonly source: { readonly name: string; readonly code: string; readonly entryPoint: string },
    private readonly layout: { readonly pipeline: GPUPipelineLayout; readonly group: GPUBindGroupLayout } | null,
  ) {}

  get compiled(): GPUComputePipeline {
    this.made ??= this.errors.checked(`compiling ${this.label}`, () =>
      this.gpu.createComputePipeline(this.descriptor()),
    );
    return this.made;
  }

  get groupLayout(): GPUBindGroupLayout {
    return this.layout?.group ?? this.compiled.getBindGroupLayout(0);
  }

  /**
   * Compiles it, `beside` the host and other pipelines in a thread of its own.
   *
   * @throws Error with the label and the compiler's message, or what became of the device
   */
  compile(beside: boolean): Promise<void> {
    this.making ??= this.made ? Promise.resolve() : this.checkedCompile(beside);
    return this.making;
  }

  private async checkedCompile(beside: boolean): Promise<void> {
    const { gpu, errors, label } = this;
    errors.assertOpen();
    gpu.pushErrorScope('validation');
    const descriptor = this.descriptor();
    const making = Promise.resolve(
      beside ? gpu.createComputePipelineAsync(descriptor) : gpu.createComputePipeline(descriptor),
    ).catch(({ message }: Error) => ({ message }));
    const [refused, made] = await errors.settle(Promise.all([gpu.popErrorScope(), making]));
    errors.assertOpen();
    if (refused || 'message' in made) throw new Error(`compiling ${label}: ${(refused ?? (made as Error)).message}`);
    this.made ??= made;
  }

  private descriptor(): GPUComputePipelineDescriptor {
    const { name, code, entryPoint } = this.source;
    const module = this.gpu.createShaderModule({ label: name, code });
    return { label: this.label, layout: this.layout?.pipeline ?? 'auto', compute: { module, entryPoint } };
  }
}

/** Entry points, each once for every set of parameters. */
export class Pipelines {
  /** How many are compiled side by side before a captured step runs. */
  atOnce = 8;
  private readonly known = new WeakMap<Kernel, Map<string, Pipeline>>();
  /** By the labels of their pipelines. */
  private readonly specialised = new Map<string, { readonly name: string; readonly parameters: Parameters }>();
  /**
   * One for all pipelines with the same numbers and kinds of bindings. WebGPU would derive one from each kernel, different for every
   * type of element; Dawn sets some hundred descriptors aside for each, lavapipe maps a page of memory for each of those, and
   * Linux refuses a process more than 65530 mappings.
   */
  private readonly layouts = new Map<string, NonNullable<Pipeline['layout']>>();
  private readonly target: CompilerTarget;

  constructor(
    private readonly gpu: GPUDevice,
    private readonly errors: AsyncErrors,
    /** Bytes of op parameters that need no uniform buffer. */
    private readonly immediateBytes: number,
    private readonly subgroupSizes: readonly [number, number],
    /** Use the layouts that WebGPU derives: with them it refuses a binding that the entry point does not use. */
    private readonly derived: boolean,
  ) {
    this.target = { immediateBytes, subgroupSizeControl: gpu.features.has('subgroup-size-control') };
  }

  /** Their labels. */
  names(): string[] {
    return [...this.specialised.keys()];
  }

  /**
   * The compiler's errors about a kernel as it stands, or with the first parameters that it does not compile with, of all those that a
   * kernel of its name has had on this device. Lines are those of its source.
   *
   * @throws Error if it lacks one of these parameters
   */
  async compilerErrors(kernel: Kernel): Promise<GPUCompilationMessage[]> {
    const used = [...this.specialised.values()].filter(({ name }) => name === kernel.name);
    const sets = [{}, ...used.map(({ parameters }) => parameters)];
    for (const code of new Set(sets.map((parameters) => specialise(kernel, parameters, this.target)))) {
      this.gpu.pushErrorScope('validation');
      const module = this.gpu.createShaderModule({ label: kernel.name, code });
      await this.gpu.popErrorScope(); // the messages say more than the error
      const { messages } = await module.getCompilationInfo();
      const errors = messages.filter(({ type }) => type === 'error');
      if (errors.length > 0) return errors;
    }
    return [];
  }

  /**
   * `used`: names of the bindings that the entry point uses, which all have to be in the kernel.
   *
   * @throws Error for a kernel with subgroup operations where subgroups could have another size than it was made for
   */
  get(kernel: Kernel, entry: string, parameters: Parameters, used: readonly string[]): Pipeline {
    const label = `${kernel.name} ${entry} ${JSON.stringify(parameters)}`;
    const key = `${label} ${used}`;
    const ofKernel = this.known.get(kernel) ?? new Map<string, Pipeline>();
    const known = ofKernel.get(key);
    if (known) return known;
    if (!kernel.entryPoints.includes(entry))
      throw new Error(`kernel ${kernel.name}: no entry point '${entry}'; it has ${kernel.entryPoints.join(', ')}`);
    const code = specialise(kernel, parameters, this.target);
    if (/^enable [^;]*\bsubgroups\b/m.test(code) && !code.includes('@subgroup_size'))
      this.assertSubgroups(kernel, parameters.subgroupSize);
    const source = { name: kernel.name, code, entryPoint: entry };
    const layout = this.derived ? null : this.errors.checked(`compiling ${label}`, () => this.layout(kernel, used));
    const pipeline = new Pipeline(this.gpu, this.errors, label, source, layout);
    this.known.set(kernel, ofKernel.set(key, pipeline));
    this.specialised.set(label, { name: kernel.name, parameters });
    return pipeline;
  }

  /** Without `@subgroup_size` a kernel runs at the only size that there is. */
  private assertSubgroups({ name }: Kernel, size: number | string | undefined): void {
    const [least, most] = this.subgroupSizes;
    if (size === undefined)
      throw new Error(`kernel ${name}: it has subgroup operations, and no 'subgroupSize' among its parameters`);
    if (size !== least || size !== most)
      throw new Error(
        `kernel ${name}: made for subgroups of ${size} lanes; this device's have ${least} to ${most}, and it lacks 'subgroup-size-control'`,
      );
  }

  private layout(kernel: Kernel, used: readonly string[]): NonNullable<Pipeline['layout']> {
    const bindings = used.map((name) => kernel.bindings.get(name)!).sort((a, b) => a.index - b.index);
    const key = bindings.map(({ index, space }) => `${index} ${space}`).join();
    const known = this.layouts.get(key);
    if (known) return known;
    const entries = bindings.map(
      ({ index, space }): GPUBindGroupLayoutEntry => ({
        binding: index,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: bufferTypes[space] },
      }),
    );
    const group = this.gpu.createBindGroupLayout({ entries });
    const immediateSize = this.immediateBytes;
    const pipeline = this.gpu.createPipelineLayout({ bindGroupLayouts: [group], immediateSize });
    const layout = { pipeline, group };
    this.layouts.set(key, layout);
    return layout;
  }
}
