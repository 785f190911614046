/** Where in a training step numbers cease to be finite. */
import { counted } from '../../engine/files/errors.ts';
import { backward, formatShape, observeOps, type Tensor } from '../../engine/index.ts';
import { FirstNotFinite } from '../../kernels/index.ts';
import { type Inputs, tensorsOf } from '../architecture/inputs.ts';
import type { Model } from '../architecture/model.ts';
import { trainingPass } from '../architecture/training-pass.ts';

/**
 * Runs a batch once more, forward and backward, on the weights as they are now, and looks at every tensor in the order in which they are
 * made: inputs, weights, results of operations, gradients. Returns the first that is not finite in words, or null. It takes the memory
 * and the time of an eager step with recomputation, and overwrites the gradients.
 */
export async function firstNotFinite(model: Model, inputs: Inputs): Promise<string | null> {
  const { device, parameters } = model;
  using numbers = new FirstNotFinite(device);
  const words: string[] = [];
  const look = (tensor: Tensor, what: string) => {
    words[numbers.search(tensor)] = `${what}, ${formatShape(tensor.shape)}`;
  };
  const named = new Set([...parameters].flatMap(({ pieces }) => pieces));
  device.memory.trim();
  device.step(() => {
    const tensors = tensorsOf(device, inputs);
    for (const [name, tensor] of Object.entries(tensors)) look(tensor, `the input '${name}'`);
    for (const { name, pieces } of parameters) for (const piece of pieces) look(piece, `the weight '${name}'`);
    // The results of the last op forward, which are encoded when the next one is told of.
    let last = () => {};
    observeOps(device, (phase, op, results, operands) => {
      last();
      const weights = operands.filter((operand) => named.has(operand)).map(({ name }) => `'${name}'`);
      const place = `${op}${weights.length > 0 ? ` with ${weights.join(', ')}` : ''}`;
      const what = phase === 'forward' ? `the result of ${place}` : `a gradient of ${place}`;
      const own = () => {
        for (const result of results) if (result?.alive) look(result, what);
      };
      if (phase === 'backward') own();
      last = phase === 'forward' ? own : () => {};
    });
    parameters.zeroGradients();
    const { loss } = trainingPass(model, tensors, { recompute: true });
    last();
    if (loss.wantsGradient) backward(loss);
    for (const { name, pieces } of parameters)
      for (const { grad } of pieces) if (grad) look(grad, `the gradient of '${name}'`);
  });
  const found = await numbers.read();
  device.memory.trim();
  return found && `${words[found.index]}, in ${counted(found.elements, 'number')}`;
}
