/** An LSTM, step by step. */
import { sigmoid } from './elementwise.ts';
import { type Many, make, type Numbers } from './numbers.ts';
import { linear } from './products.ts';
import { concatenateTokens, sliceTokens } from './rows.ts';

/** One step from the sums of its gates [rows, 4 width], in the order i, f, g, o, and its cell [rows, width]. */
export function lstmCell(gates: Numbers, cell: Numbers, width: number): Record<'hidden' | 'cell', Float64Array> {
  const gate = (i: number, which: number) => gates[(4 * Math.floor(i / width) + which) * width + (i % width)];
  const next = make(cell.length, (i) => sigmoid(gate(i, 1)) * cell[i] + sigmoid(gate(i, 0)) * Math.tanh(gate(i, 2)));
  return { hidden: next.map((value, i) => sigmoid(gate(i, 3)) * Math.tanh(value)), cell: next };
}

/** The hidden states [batch, steps, width] of all steps of x [batch, steps, inputs]. */
export function lstm([x, inputWeight, hiddenWeight, inputBias, hiddenBias]: Many, [batch, steps]: readonly number[]) {
  const width = hiddenBias.length / 4;
  const given = linear(x, inputWeight, x.length / (batch * steps), { bias: inputBias });
  const zeros = new Float64Array(batch * width);
  let state: ReturnType<typeof lstmCell> = { hidden: zeros, cell: zeros };
  const states = Array.from({ length: steps }, (_, step) => {
    const residual = sliceTokens(given, [batch, steps], step, 1);
    state = lstmCell(linear(state.hidden, hiddenWeight, width, { bias: hiddenBias, residual }), state.cell, width);
    return state.hidden;
  });
  return concatenateTokens(states, batch);
}
