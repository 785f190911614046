import { emptyTensor, loadKernel, record, type Tensor } from '../engine/index.ts';
import { expectDtype, storage } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./activation.wgsl', import.meta.url));
const THREADS = 64;
/** For each element, forward and backward. */
export const activationFlops = {
  gelu: [11, 24],
  swish: [4, 9],
  hyperbolicTangent: [18, 7],
  sigmoid: [3, 5],
  relu: [1, 1],
} as const;

/** x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, the tanh form of GELU. x [...] f32, f16 or bf16; the same out. */
export function gelu(x: Tensor): Tensor {
  return activate('gelu', 'gelu', x);
}

/** x sigmoid(x), also named SiLU. x [...] f32, f16 or bf16; the same out. */
export function swish(x: Tensor): Tensor {
  return activate('swish', 'swish', x);
}

/** x [...] f32, f16 or bf16; the same out. */
export function tanh(x: Tensor): Tensor {
  return activate('tanh', 'hyperbolicTangent', x);
}

/** 1 / (1 + exp(-x)). x [...] f32, f16 or bf16; the same out. */
export function sigmoid(x: Tensor): Tensor {
  return activate('sigmoid', 'sigmoid', x);
}

/** max(x, 0), whose gradient at 0 is 0. x [...] f32, f16 or bf16; the same out. */
export function relu(x: Tensor): Tensor {
  return activate('relu', 'relu', x);
}

function activate(op: string, activation: keyof typeof activationFlops, x: Tensor): Tensor {
  expectDtype(op, 'x', x, 'f32', 'f16', 'bf16');
  const { device } = x;
  const { fields, workgroups } = streaming(device, Math.ceil(x.size / 4), THREADS);
  const run = (entry: string, bindings: Record<string, Tensor>, flops: number) =>
    device.dispatch({
      kernel,
      entry,
      parameters: { THREADS, ...storage(x.dtype) },
      bindings,
      uniform: fields,
      workgroups,
      flops: flops * x.size,
    });
  const y = emptyTensor(device, x.shape, x.dtype, op);
  const [forward, backward] = activationFlops[activation];
  run(activation, { x, y }, forward);
  record(op, [x], [y], ([dy]) => {
    if (!dy) return [null];
    const dx = emptyTensor(device, x.shape, 'f32', `${op} backward`);
    run(`${activation}Backward`, { x, dy, dx }, backward);
    return [dx];
  });
  return y;
}
