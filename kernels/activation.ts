import { emptyTensor, loadKernel, record, type Tensor } from '../engine/index.ts';
import { expectDtype, rmsNormKernel, storage } from './operand.ts';
import { streaming } from './streaming.ts';

const kernel = await loadKernel(new URL('./activation.wgsl', import.meta.url), rmsNormKernel);
const THREADS = 64;
/** For each element, forward and backward. */
export const activationFlops = {
  gelu: [11, 25],
  swish: [4, 11],
  hyperbolicTangent: [18, 8],
  sigmoid: [3, 6],
  relu: [1, 0],
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
  const y = emptyTensor(x.device, x.shape, x.dtype, op);
  run(activation, x, { x, y }, activationFlops[activation][0]);
  record(op, [x], [y], ([dy]) => [dy && activationGradient(`${op} backward`, activation, x, dy)]);
  return y;
}

/** f'(x) dy, f32. Leaves no tape entry. */
function activationGradient(op: string, activation: keyof typeof activationFlops, x: Tensor, dy: Tensor): Tensor {
  const dx = emptyTensor(x.device, x.shape, 'f32', op);
  run(`${activation}Backward`, x, { x, dy, dx }, activationFlops[activation][1]);
  return dx;
}

function run(entry: string, { device, dtype, size }: Tensor, bindings: Record<string, Tensor>, flops: number): void {
  const { fields, workgroups } = streaming(device, Math.ceil(size / 4), THREADS);
  device.dispatch({
    kernel,
    entry,
    parameters: { THREADS, ...storage(dtype) },
    bindings,
    uniform: fields,
    workgroups,
    flops: flops * size,
  });
}
