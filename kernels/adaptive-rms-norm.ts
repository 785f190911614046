import { emptyTensor, formatShape, gradientSum, gridFor, loadKernel, type Tensor } from '../engine/index.ts';
import { groupsOf } from './groups.ts';
import { expectDtype, expectLike, expectShape, recordOne, rowsAndWidth, sharedDevice } from './operand.ts';
import { forwardSlices, inputGradient, rowParameters, slicesOfRows } from './rows.ts';

const kernel = await loadKernel(new URL('./adaptive-rms-norm.wgsl', import.meta.url));

/**
 * y = x / sqrt(mean(x^2) + epsilon) * (1 + scale) + shift, over the last axis, with scale and shift from
 * modulation = [scale | shift | gate] (openpi, gemma.py). The gate is for gatedResidual.
 *
 * x [B, T, width], modulation [B, 3 width] for one condition a sample or [B, T, 3 width] for one a token -> [B, T, width].
 * f32, f16 or bf16, the same for both.
 */
export function adaptiveRmsNorm(x: Tensor, modulation: Tensor, options: { epsilon?: number } = {}): Tensor {
  const { device, run, columns, rows, width, slices, samples } = setUp(
    'adaptiveRmsNorm',
    x,
    modulation,
    options.epsilon,
  );
  const y = emptyTensor(device, x.shape, x.dtype, 'adaptiveRmsNorm');
  const inverseRoot = emptyTensor(device, [rows], 'f32', 'adaptiveRmsNorm');
  const shared = forwardSlices(device, rows / samples, samples);
  const cost = { flops: 7 * x.size, thirds: 2, slices: shared };
  run('forward', { x, modulation, y, inverseRoot }, gridFor(samples * shared, 1), cost);
  recordOne('adaptiveRmsNorm', [x, modulation], y, (dy, [wantsX, wantsModulation]) => {
    const empty = (shape: readonly number[]) => emptyTensor(device, shape, 'f32', 'adaptiveRmsNorm backward');
    const { gradient: dx, accumulate } = inputGradient(x, wantsX, 'adaptiveRmsNorm backward');
    const partials = { dScalePartial: empty([samples, slices, width]), dShiftPartial: empty([samples, slices, width]) };
    const bindings = { x, modulation, inverseRoot, dy, dx, ...partials };
    run('backward', bindings, gridFor(samples * slices, 1), { flops: 14 * x.size, thirds: 1, accumulate });
    if (!wantsModulation) return [dx, null];
    const ofModulation = gradientSum(modulation, 'adaptiveRmsNorm backward');
    const dModulation = ofModulation.gradient;
    const flops = 2 * partials.dScalePartial.size;
    run('backwardScale', { ...partials, dModulation }, columns, { flops, accumulate: ofModulation.accumulate });
    return [dx, dModulation];
  });
  return y;
}

/**
 * x + gate * branch, with the gate from modulation = [scale | shift | gate].
 *
 * x and branch [B, T, width], modulation as in adaptiveRmsNorm -> [B, T, width]. f32, f16 or bf16, the same for all.
 */
export function gatedResidual(x: Tensor, branch: Tensor, modulation: Tensor): Tensor {
  const { device, run, columns, rows, width, slices, samples } = setUp('gatedResidual', x, modulation);
  expectLike('gatedResidual', 'branch', branch, x.dtype, x.shape);
  sharedDevice('gatedResidual', x, branch);
  const y = emptyTensor(device, x.shape, x.dtype, 'gatedResidual');
  run('residual', { x, branch, modulation, y }, gridFor(rows, 1), { flops: 2 * x.size, thirds: 1 });
  recordOne('gatedResidual', [x, branch, modulation], y, (dy, [, , wantsModulation]) => {
    const empty = (shape: readonly number[]) => emptyTensor(device, shape, 'f32', 'gatedResidual backward');
    const [dBranch, dGatePartial] = [empty(branch.shape), empty([samples, slices, width])];
    const bindings = { branch, modulation, dy, dBranch, dGatePartial };
    run('backwardResidual', bindings, gridFor(samples * slices, 1), { flops: 3 * x.size, thirds: 1 });
    if (!wantsModulation) return [dy, dBranch, null];
    const dModulation = empty(modulation.shape);
    run('backwardGate', { dGatePartial, dModulation }, columns, { flops: dGatePartial.size });
    return [dy, dBranch, dModulation];
  });
  return y;
}

/**
 * Checks the operands. `samples` are the rows of the modulation, `columns` is a grid with a thread for each group of its thirds, and
 * `run` dispatches an entry point.
 */
function setUp(op: string, x: Tensor, modulation: Tensor, epsilon = 1e-6) {
  expectDtype(op, 'x', x, 'f32', 'f16', 'bf16');
  expectShape(op, 'x', x, [null, null, null]);
  const { rows, width } = rowsAndWidth(op, 'x', x);
  const [batch, tokens] = x.shape;
  expectDtype(op, 'modulation', modulation, x.dtype);
  const leading = modulation.shape.slice(0, -1);
  const perSample = leading.length === 1 && leading[0] === batch;
  const perToken = leading.length === 2 && leading[0] === batch && leading[1] === tokens;
  if (!(perSample || perToken) || modulation.shape.at(-1) !== 3 * width)
    throw new Error(
      `${op}: modulation has shape ${formatShape(modulation.shape)}; expected [${batch}, ${3 * width}] or [${batch}, ${tokens}, ${3 * width}] for x ${formatShape(x.shape)}`,
    );
  const device = sharedDevice(op, x, modulation);
  const { size, parameters } = groupsOf(op, 'x', x, width);
  const groups = width / size;
  const samples = perToken ? rows : batch;
  const length = perToken ? 1 : tokens;
  const slices = slicesOfRows(device, length, samples);
  const taking = rowParameters(device, groups);
  const sizes = { samples, length, groups, width, epsilon };
  /** `thirds`: how many of the modulation's three are read; `slices` of a sample, by default those of backward. */
  const run = (
    entry: string,
    bindings: Record<string, Tensor>,
    workgroups: [number, number],
    cost: { flops: number; thirds?: number; accumulate?: boolean; slices?: number },
  ) => {
    const { flops, thirds = 0, accumulate = false, slices: own = slices } = cost;
    device.dispatch({
      kernel,
      entry,
      parameters: { ...taking, ...parameters, ...(size === 1 && { total: 'single' }) },
      bindings,
      uniform: { ...sizes, slices: own, rowsOfSlice: Math.ceil(length / own), accumulate: accumulate ? 1 : 0 },
      workgroups,
      flops,
      bytes: Object.entries(bindings).reduce(
        (sum, [name, { byteLength }]) => sum + (name === 'modulation' ? (thirds / 3) * byteLength : byteLength),
        0,
      ),
    });
  };
  return { device, rows, width, samples, slices, run, columns: gridFor(samples * groups, taking.THREADS) };
}
