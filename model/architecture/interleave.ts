/** The mixture over control steps: each a sequence of its own, or, with interleaved history, those of an example in one sequence. */
import type { ParameterSet, Tensor } from '../../engine/index.ts';
import { reshape } from '../../kernels/index.ts';
import { stepsInSequence } from './configuration.ts';
import type { MixturePass, MixtureResult, PerExpert } from './mixture.ts';
import type { Architecture } from './model.ts';
import { inSequence, type RunningBlock } from './sequence.ts';

export interface StepsPass extends Omit<MixturePass, 'queries' | 'table' | 'lossBlocks'> {
  /** The blocks of a control step that run, in order, one entry for each copy. */
  readonly blocks: readonly RunningBlock[];
  /** The blocks with a loss on their final hidden states. */
  readonly lossBlocks?: readonly string[];
}

/**
 * Runs the mixture. The streams, given and returned, are those of control steps: [control steps, rows of one, width]. The padding mask
 * and the rotary table are those of sequences, as `sequenceInputs` makes them.
 */
export function runSteps(architecture: Architecture, values: ParameterSet, pass: StepsPass): MixtureResult {
  const steps = stepsInSequence(architecture.configuration);
  const blocks = inSequence(architecture.configuration, pass.blocks);
  const together = (x: Tensor) => {
    const [count, rows, ...others] = x.shape;
    return steps === 1 ? x : reshape(x, [count / steps, steps * rows, ...others]);
  };
  const result = architecture.mixture.run(values, {
    ...pass,
    inputs: mapped(pass.inputs, together),
    blocks,
    queries: blocks.map(({ tableName }) => tableName),
    table: architecture.table(pass.blocks),
    lossBlocks:
      pass.lossBlocks && blocks.filter(({ name }) => pass.lossBlocks!.includes(name)).map((own) => own.tableName),
  });
  if (steps === 1) return result;
  // Chosen rows are numbered through the batch, and stay as they are.
  const apart = (x: Tensor, expert: string) =>
    x.size === pass.inputs[expert].size ? reshape(x, pass.inputs[expert].shape) : x;
  return {
    hidden: mapped(result.hidden, apart),
    residuals: result.residuals.map((streams) => mapped(streams, apart)),
  };
}

function mapped(tensors: PerExpert<Tensor>, change: (x: Tensor, expert: string) => Tensor): PerExpert<Tensor> {
  return Object.fromEntries(Object.entries(tensors).map(([expert, x]) => [expert, change(x, expert)]));
}
