/** The time of noisy actions between noise and actions: it conditions the norms of an adaptive expert, or is concatenated to the actions. */
import type { ParameterSet, Tensor } from '../../engine/index.ts';
import type { BlockSettings, ModelConfiguration } from './configuration.ts';
import { floats, type Inputs, type InputTensors, inputNamed } from './inputs.ts';
import { type Layer, Linear, parametersOfLayers } from './layers.ts';
import { sideBySide } from './vision.ts';

export class FlowTime implements Layer {
  readonly parameters;
  private readonly adaptive: boolean;
  private readonly width: number;
  private readonly length: number;
  private readonly affine: readonly Linear[];

  constructor(
    { experts }: ModelConfiguration,
    { weights, length }: BlockSettings,
    private readonly embed: (times: ArrayLike<number>, width: number) => Float32Array<ArrayBuffer>,
  ) {
    const { width, adaptive = false } = experts[weights];
    this.adaptive = adaptive;
    this.width = width;
    this.length = length;
    const name = adaptive ? 'time_mlp' : 'action_time_mlp';
    this.affine = [
      new Linear(weights, `${name}_in`, { outputs: width, inputs: adaptive ? width : 2 * width }),
      new Linear(weights, `${name}_out`, { outputs: width, inputs: width }),
    ];
    this.parameters = parametersOfLayers(this.affine);
  }

  /** The embedding of a time for each chunk: a row for each chunk, or for each of its actions if time is concatenated to them. */
  inputs(times: ArrayLike<number>): Inputs {
    const { width, length } = this;
    if (this.adaptive) return { timeEmbedding: floats(this.embed(times, width), [times.length, width]) };
    const rows = Float64Array.from({ length: times.length * length }, (_, row) => times[Math.floor(row / length)]);
    return { timeEmbedding: floats(this.embed(rows, width), [times.length, length, width]) };
  }

  /** actions [chunks, length, width] -> the rows of the expert, and the condition [chunks, width] of its adaptive norms. */
  run(values: ParameterSet, actions: Tensor, inputs: InputTensors): { rows: Tensor; condition: Tensor | null } {
    const times = inputNamed(inputs, 'timeEmbedding');
    const [first, second] = this.affine;
    if (!this.adaptive) {
      const hidden = first.run(values, sideBySide([actions, times]), { activation: 'swish' });
      return { rows: second.run(values, hidden), condition: null };
    }
    const hidden = first.run(values, times, { activation: 'swish' });
    return { rows: actions, condition: second.run(values, hidden, { activation: 'swish' }) };
  }
}
