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
  /** The blocks of the expert. */
  private readonly blocks: readonly BlockSettings[];
  private readonly affine: readonly Linear[];

  constructor(
    { experts, blocks }: ModelConfiguration,
    private readonly block: BlockSettings,
    private readonly embed: (times: ArrayLike<number>, width: number) => Float32Array<ArrayBuffer>,
  ) {
    const { weights } = block;
    const { width, adaptive = false } = experts[weights];
    this.adaptive = adaptive;
    this.width = width;
    this.blocks = blocks.filter((own) => own.weights === weights);
    const name = adaptive ? 'time_mlp' : 'action_time_mlp';
    this.affine = [
      new Linear(weights, `${name}_in`, { outputs: width, inputs: adaptive ? width : 2 * width }),
      new Linear(weights, `${name}_out`, { outputs: width, inputs: width }),
    ];
    this.parameters = parametersOfLayers(this.affine);
  }

  /**
   * The embedding of a time for each chunk: a row for each chunk, or for each of its actions if time is concatenated to them. With
   * `delays` so many first actions of each chunk have time 0, and adaptive norms have a condition for each row of the expert, of those
   * `blocks` that run.
   */
  inputs(times: ArrayLike<number>, delays?: ArrayLike<number> | null, blocks = this.blocks): Inputs {
    const { adaptive, width, block } = this;
    const embedded = (own: ArrayLike<number>, shape: number[]) => ({
      timeEmbedding: floats(this.embed(own, width), [...shape, width]),
    });
    if (adaptive && !delays) return embedded(times, [times.length]);
    const rows = Array.from(times).flatMap((time, chunk) =>
      (adaptive ? blocks : [block]).flatMap(({ name, weights, length }) =>
        weights !== block.weights
          ? []
          : Array.from({ length }, (_, row) => (name === block.name && row < (delays?.[chunk] ?? 0) ? 0 : time)),
      ),
    );
    return embedded(rows, adaptive ? [rows.length] : [times.length, block.length]);
  }

  /** actions [chunks, length, width] -> the rows of the expert, and the condition of its adaptive norms [chunks, width], or [rows, width] with delays. */
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
