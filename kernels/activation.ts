import { emptyTensor, loadKernel, type Tensor } from '../engine/index.ts';
import { expectDtype, recordOne, storage } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./activation.wgsl', import.meta.url));
const THREADS = 64;
/** For each element, forward and backward. */
export const activationFlops = {
  gelu: [11, 25],
  swish: [4, 11],
  tanh: [18, 8],
  sigmoid: [3, 6],
  relu: [1, 0],
} as const;

/** x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, the tanh form of GELU. x [...] f32, f16 or bf16; the same out. */
export const gelu = (x: Tensor): Tensor => activate('gelu', x);
/** x sigmoid(x), also named SiLU. x [...] f32, f16 or bf16; the same out. */
export const swish = (x: Tensor): Tensor => activate('swish', x);
/** x [...] f32, f16 or bf16; the same out. */
export const tanh = (x: Tensor): Tensor => activate('tanh', x);
/** 1 / (1 + exp(-x)). x [...] f32, f16 or bf16; the same out. */
export const sigmoid = (x: Tensor): Tensor => activate('sigmoid', x);
/** max(x, 0), whose gradient at 0 is 0. x [...] f32, f16 or bf16; the same out. */
export const relu = (x: Tensor): Tensor => activate('relu', x);

function activate(op: keyof typeof activationFlops, x: Tensor): Tensor {
  expectDtype(op, 'x', x, 'f32', 'f16', 'bf16');
  const { device, shape, dtype, size } = x;
  const { fields, workgroups } = streaming(device, Math.ceil(size / 4), THREADS);
  const parameters = { THREADS, ...storage(dtype), ...(op !== 'gelu' && { activation: op, gradient: op }) };
  const run = (entry: string, bindings: Record<string, Tensor>, flops: number) =>
    device.dispatch({ kernel, entry, parameters, bindings, uniform: fields, workgroups, flops: flops * size });
  const [forward, backward] = activationFlops[op];
  const y = emptyTensor(device, shape, dtype, op);
  run('forward', { x, y }, forward);
  recordOne(op, [x], y, (dy) => {
    const dx = emptyTensor(device, shape, 'f32', `${op} backward`);
    run('backward', { x, dy, dx }, backward);
    return [dx];
  });
  return y;
}
