/** The flow time of noisy actions, or their noise level: a token, the condition of adaptive norms, or concatenated to each action. */
import type { ParameterSet, Tensor } from '../../engine/index.ts';
import { type BlockSettings, type ModelConfiguration, timeBlock } from './configuration.ts';
import { floats, type Inputs, type InputTensors, inputNamed } from './inputs.ts';
import { Linear, parametersOfLayers } from './layers.ts';
import { sideBySide } from './vision.ts';

/** Names of the two affine maps of a time: those of HybridVLA, pi0.5 and pi0. */
const names = {
  token: ['t_embedder.mlp.0', 't_embedder.mlp.2'],
  adaptive: ['time_mlp_in', 'time_mlp_out'],
  concatenate: ['action_time_mlp_in', 'action_time_mlp_out'],
} as const;

/** The flow time of a block of noisy actions, which `embed` embeds. */
export function flowTime(
  configuration: ModelConfiguration,
  block: BlockSettings,
  embed: (times: ArrayLike<number>, width: number) => Float32Array<ArrayBuffer>,
) {
  const { weights } = block;
  const { width, adaptive } = configuration.experts[weights];
  const mode = timeBlock(configuration) ? 'token' : adaptive ? 'adaptive' : 'concatenate';
  const first = new Linear(weights, names[mode][0], {
    outputs: width,
    inputs: mode === 'concatenate' ? 2 * width : width,
  });
  const second = new Linear(weights, names[mode][1], { outputs: width, inputs: width });
  return {
    parameters: parametersOfLayers([first, second]),
    /**
     * The embedding of a time for each chunk: a row for each chunk, or for each of its actions if time is concatenated to them. `delays`
     * are the numbers of first actions that have time 0 instead; adaptive norms then have a row for each row of their expert, of the
     * `blocks` that run.
     */
    inputs(times: ArrayLike<number>, delays?: ArrayLike<number> | null, blocks = configuration.blocks): Inputs {
      const ofExpert = mode === 'adaptive' && delays ? blocks.filter((own) => own.weights === weights) : [];
      const byRow = mode === 'concatenate' ? [block] : ofExpert;
      const rows = Array.from(times).flatMap((time, chunk) => {
        const clean = delays?.[chunk] ?? 0;
        const own = byRow.flatMap(({ name, length }) =>
          Array.from({ length }, (_, row) => (name === block.name && row < clean ? 0 : time)),
        );
        return own.length > 0 ? own : [time];
      });
      const shape = mode === 'adaptive' ? [rows.length, width] : [times.length, rows.length / times.length, width];
      return { timeEmbedding: floats(embed(rows, width), shape) };
    },
    /**
     * actions [chunks, length, width] -> the rows of their block, and either the token of their time [chunks, 1, width], or the condition
     * of adaptive norms [chunks, width], or with delays [rows of the expert, width], or neither.
     */
    run(values: ParameterSet, actions: Tensor, inputs: InputTensors) {
      const times = inputNamed(inputs, 'timeEmbedding');
      const given = mode === 'concatenate' ? sideBySide([actions, times]) : times;
      const hidden = first.run(values, given, { activation: 'swish' });
      const output = second.run(values, hidden, { activation: mode === 'adaptive' ? 'swish' : undefined });
      return {
        rows: mode === 'concatenate' ? output : actions,
        token: mode === 'token' ? output : null,
        condition: mode === 'adaptive' ? output : null,
      };
    },
  };
}
