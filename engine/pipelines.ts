import type { AsyncErrors } from './async-errors.ts';
import { type Kernel, type Parameters, specialise } from './kernel.ts';

const bufferTypes = { uniform: 'uniform', read: 'read-only-storage', read_write: 'storage' } as const;

/** Compiled entry points, each made once for every set of parameters. */
export class Pipelines {
  /** Milliseconds that making them took. */
  readonly makingTimes = new WeakMap<GPUComputePipeline, number>();
  /** Those that have run once, on nothing. */
  readonly warm = new WeakSet<GPUComputePipeline>();
  private readonly known = new Map<string, GPUComputePipeline>();
  /**
   * One for all pipelines with the same numbers and kinds of bindings. WebGPU would derive one from each kernel, different for every
   * type of element; Dawn sets some hundred descriptors aside for each, lavapipe maps a page of memory for each of those, and
   * Linux refuses a process more than 65530 mappings.
   */
  private readonly layouts = new Map<string, GPUPipelineLayout>();

  constructor(
    private readonly gpu: GPUDevice,
    private readonly errors: AsyncErrors,
    /** Use the layouts that WebGPU derives: with them it refuses a binding that the entry point does not use. */
    private readonly derived: boolean,
  ) {}

  /** For each pipeline the kernel, the entry point and the parameters as JSON, with a space between. */
  names(): string[] {
    return [...this.known.values()].map(({ label }) => label);
  }

  /** `used`: names of the bindings that the entry point uses, which all have to be in the kernel. */
  get(kernel: Kernel, entry: string, parameters: Parameters, used: readonly string[]): GPUComputePipeline {
    const label = `${kernel.name} ${entry} ${JSON.stringify(parameters)}`;
    const key = `${label} ${used}`;
    const known = this.known.get(key);
    if (known) return known;
    if (!kernel.entryPoints.includes(entry))
      throw new Error(`kernel ${kernel.name}: no entry point '${entry}'; it has ${kernel.entryPoints.join(', ')}`);
    const code = specialise(kernel, parameters);
    const begin = performance.now();
    const pipeline = this.errors.checked(`compiling ${label}`, () => {
      const module = this.gpu.createShaderModule({ label: kernel.name, code });
      const layout = this.derived ? 'auto' : this.layout(kernel, used);
      return this.gpu.createComputePipeline({ label, layout, compute: { module, entryPoint: entry } });
    });
    this.known.set(key, pipeline);
    this.makingTimes.set(pipeline, performance.now() - begin);
    return pipeline;
  }

  private layout(kernel: Kernel, used: readonly string[]): GPUPipelineLayout {
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
    const layout = this.gpu.createPipelineLayout({ bindGroupLayouts: [this.gpu.createBindGroupLayout({ entries })] });
    this.layouts.set(key, layout);
    return layout;
  }
}
