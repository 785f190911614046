import { emptyTensor, gridFor, loadKernel, record, type Tensor } from '../engine/index.ts';
import { linear } from './linear.ts';
import { expectDtype, expectShape, rowsAndWidth, sharedDevice, storage } from './operand.ts';

const kernel = await loadKernel(new URL('./gated-mlp.wgsl', import.meta.url));
const THREADS = 64;

/**
 * (gelu(x gate^T) * (x up^T)) down^T with the tanh form of GELU: the MLP of Gemma (Shazeer 2020, arXiv 2002.05202, GEGLU).
 *
 * x [..., width], gate and up [hidden, width], down [width, hidden] -> [..., width]. f32.
 */
export function gatedMlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor): Tensor {
  const op = 'gatedMlp';
  const { width } = rowsAndWidth(op, 'x', x);
  expectDtype(op, 'x', x, 'f32');
  expectDtype(op, 'gate', gate, 'f32');
  expectShape(op, 'gate', gate, [null, width]);
  const [hidden] = gate.shape;
  for (const [argument, weight, shape] of [
    ['up', up, [hidden, width]],
    ['down', down, [width, hidden]],
  ] as const) {
    expectDtype(op, argument, weight, 'f32');
    expectShape(op, argument, weight, shape);
  }
  const step = sharedDevice(op, x, gate, up, down).currentStep(op);
  const gateOutput = linear(x, gate);
  const upOutput = linear(x, up);
  const activated = gatedActivation(gateOutput, upOutput);
  const output = linear(activated, down);
  if (!activated.wantsGradient) for (const { buffer } of [gateOutput, upOutput]) step.release(buffer);
  if (!output.wantsGradient) step.release(activated.buffer);
  return output;
}

/** gelu(gate) * up, element by element, for two tensors of one shape, in f32, f16 or bf16; the result is like gate. */
export function gatedActivation(gate: Tensor, up: Tensor): Tensor {
  const op = 'gatedActivation';
  expectDtype(op, 'gate', gate, 'f32', 'f16', 'bf16');
  expectDtype(op, 'up', up, gate.dtype);
  expectShape(op, 'up', up, gate.shape);
  const device = sharedDevice(op, gate, up);
  const groups = Math.ceil(gate.size / 4);
  const run = (entry: string, bindings: Record<string, Tensor>, flops: number) =>
    device.dispatch({
      kernel,
      entry,
      parameters: { THREADS, ...storage(gate.dtype) },
      bindings: { gate, up, ...bindings },
      uniform: { groups },
      workgroups: gridFor(groups, THREADS),
      flops: flops * gate.size,
    });
  const y = emptyTensor(device, gate.shape, gate.dtype, op);
  run('forward', { y }, 14);
  record(op, [gate, up], [y], ([dy]) => {
    if (!dy) return [null, null];
    const dGate = emptyTensor(device, gate.shape, 'f32', `${op} backward`);
    const dUp = emptyTensor(device, gate.shape, 'f32', `${op} backward`);
    run('backward', { dy, dGate, dUp }, 26);
    return [dGate, dUp];
  });
  return y;
}
