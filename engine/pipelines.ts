import type { Answers } from './answers.ts';
import { type Kernel, type Parameters, specialise } from './kernel.ts';

/** Compiled entry points, each made once for every set of parameters. */
export class Pipelines {
  /** Milliseconds that making them took. */
  readonly makingTimes = new WeakMap<GPUComputePipeline, number>();
  /** Those that have run once, on nothing. */
  readonly warm = new WeakSet<GPUComputePipeline>();
  private readonly known = new Map<string, GPUComputePipeline>();

  constructor(
    private readonly gpu: GPUDevice,
    private readonly answers: Answers,
  ) {}

  /** For each pipeline the kernel, the entry point and the parameters as JSON, with a space between. */
  names(): string[] {
    return [...this.known.keys()];
  }

  /** Compare with the device's limits before anything is created. */
  get(kernel: Kernel, entry: string, parameters: Parameters): GPUComputePipeline {
    const key = `${kernel.name} ${entry} ${JSON.stringify(parameters)}`;
    const known = this.known.get(key);
    if (known) return known;
    if (!kernel.entryPoints.includes(entry))
      throw new Error(`kernel ${kernel.name}: no entry point '${entry}'; it has ${kernel.entryPoints.join(', ')}`);
    const code = specialise(kernel, parameters);
    const begin = performance.now();
    const pipeline = this.answers.checked(`compiling ${key}`, () => {
      const module = this.gpu.createShaderModule({ label: kernel.name, code });
      return this.gpu.createComputePipeline({ label: key, layout: 'auto', compute: { module, entryPoint: entry } });
    });
    this.known.set(key, pipeline);
    this.makingTimes.set(pipeline, performance.now() - begin);
    return pipeline;
  }
}
