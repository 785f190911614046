import { emptyTensor, loadKernel, record, type Tensor, zeroTensor } from '../engine/index.ts';
import { groupsOf, valueAlias } from './groups.ts';
import { linear } from './linear.ts';
import { expectLike, expectShape, sharedDevice } from './operand.ts';
import { reshape } from './reshape.ts';
import { forEachItem } from './streaming.ts';
import { concatenateTokens, sliceTokens } from './tokens.ts';

const kernel = await loadKernel(new URL('./lstm.wgsl', import.meta.url));

/** One layer of an LSTM: [4 width, inputs], [4 width, width] and two biases [4 width]. Their rows are those of the gates i, f, g, o, in this order. */
export interface LstmWeights {
  readonly inputWeight: Tensor;
  readonly hiddenWeight: Tensor;
  readonly inputBias: Tensor;
  readonly hiddenBias: Tensor;
}

/**
 * The hidden states of all steps of one layer (torch.nn.LSTM, batch_first). Before the first step, hidden state and cell are zeros.
 *
 * x [batch, steps, inputs] f32, weights in any storage -> [batch, steps, width]. One product takes the inputs of all steps.
 */
export function lstm(x: Tensor, { inputWeight, hiddenWeight, inputBias, hiddenBias }: LstmWeights): Tensor {
  const op = 'lstm';
  expectShape(op, 'x', x, [null, null, null]);
  expectShape(op, 'hiddenWeight', hiddenWeight, [null, null]);
  const [batch, steps] = x.shape;
  const [, width] = hiddenWeight.shape;
  expectShape(op, 'inputWeight', inputWeight, [4 * width, null]);
  const gates = linear(x, inputWeight, inputBias);
  let hidden = zeroTensor(x.device, [batch, width], 'f32', op);
  let cell = hidden;
  const states = Array.from({ length: steps }, (_, step) => {
    const residual = reshape(sliceTokens(gates, step, 1), [batch, 4 * width]);
    ({ hidden, cell } = lstmCell(linear(hidden, hiddenWeight, hiddenBias, { residual }), cell));
    return reshape(hidden, [batch, 1, width]);
  });
  return concatenateTokens(states);
}

/** One step of an LSTM from the pre-activations of its gates [batch, 4 width], in the order i, f, g, o, and its cell [batch, width]; f32. */
export function lstmCell(gates: Tensor, cell: Tensor): { hidden: Tensor; cell: Tensor } {
  const op = 'lstmCell';
  expectLike(op, 'cell', cell, 'f32', [null, null]);
  const { device, shape, size } = cell;
  const [batch, width] = shape;
  expectLike(op, 'gates', gates, 'f32', [batch, 4 * width]);
  sharedDevice(op, gates, cell);
  const groups = groupsOf(op, 'cell', cell, width);
  const items = size / groups.size;
  const run = (entry: string, bindings: Record<string, Tensor>, flops: number) =>
    forEachItem(device, kernel, entry, items, {
      ...{ parameters: valueAlias(groups), bindings, flops: flops * size },
      uniform: { items, groups: width / groups.size },
    });
  const [hidden, next] = [0, 1].map(() => emptyTensor(device, shape, 'f32', op));
  run('forward', { gates, cell, next, hidden }, 49);
  record(op, [gates, cell], [hidden, next], (gradients, [wantsGates, wantsCell]) => {
    const name = `${op} backward`;
    const [dHidden, dNext] = gradients.map((own) => own ?? zeroTensor(device, shape, 'f32', name));
    const [dGates, dCell] = [gates, cell].map((like) => emptyTensor(device, like.shape, 'f32', name));
    run('backward', { gates, cell, dNext, dHidden, dGates, dCell }, 88);
    return [wantsGates ? dGates : null, wantsCell ? dCell : null];
  });
  return { hidden, cell: next };
}
