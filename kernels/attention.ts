import { type Device, emptyTensor, record, type Tensor } from '../engine/index.ts';
import { type AttentionOptions, type CheckedCall, checkCall } from './attention-call.ts';
import { planOnDevice } from './attention-compiled.ts';
import { attentionEntryCost } from './attention-cost.ts';
import type { Plan } from './attention-plan.ts';
import { attentionDelta, joinForward, joinGradient } from './attention-rows.ts';
import { type AttentionEntry, attentionLaunch, type Launch } from './attention-variants.ts';

export type { AttentionOptions, RowsOfBlock } from './attention-call.ts';

/**
 * Attention over a table of blocks (attention.wgsl holds the mathematics).
 *
 * query [B, Tq, heads, D]: the rows of the blocks named in `queries`, in layout order; key, value [B, T, kvHeads, D], where kvHeads
 * divides heads; D a multiple of 4 up to 256; f32, f16 or bf16. Result [B, Tq, heads, D]; rows that see nothing are zero. A
 * key/value cache is keys and values that hold more rows than this call's: `queries` names the rows that are new.
 */
export function attention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): Tensor {
  return attentionWithLogSumExp(query, key, value, options).output;
}

/** Attention, and log of the sum over seen keys of exp(score) as [B, heads, Tq], f32(1e30) for rows that see nothing; no gradient passes through it. */
export function attentionWithLogSumExp(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions,
): { output: Tensor; logSumExp: Tensor } {
  const call = checkCall(query, key, value, options);
  const { device } = query;
  const { batch, queryTokens, heads } = call;
  const wants = { query: query.wantsGradient, key: key.wantsGradient, value: value.wantsGradient };
  const { words, plan } = planOnDevice(device, call, options, wants);
  const work = new Work(call, options, plan, device, query.dtype);
  const operands = { plan: words, query, key, value };

  const output = emptyTensor(device, query.shape, query.dtype, 'attention');
  const logSumExp = emptyTensor(device, [batch, heads, queryTokens], 'f32', 'attention');
  work.forward(operands, output, logSumExp);
  record('attention', [query, key, value], [output], ([dOutput], [wantsQuery, wantsKey, wantsValue]) => {
    if (!dOutput) return [null, null, null];
    const gradient = (like: Tensor) => emptyTensor(device, like.shape, 'f32', 'attention backward');
    const statistics = emptyTensor(device, [batch, heads, queryTokens, 2], 'f32', 'attention backward');
    attentionDelta(call, { forwardOutput: output, forwardLogSumExp: logSumExp, dOutput, statistics });
    const given = { ...operands, dOutput, statistics };
    const dQuery = wantsQuery ? gradient(query) : null;
    if (dQuery) work.gradients('backwardQuery', given, { dQuery });
    if (!wantsKey && !wantsValue) return [dQuery, null, null];
    const [dKey, dValue] = [gradient(key), gradient(value)];
    work.gradients('backwardKeyValue', given, { dKey, dValue });
    return [dQuery, dKey, dValue];
  });
  return { output, logSumExp };
}

type Bindings = Readonly<Record<string, Tensor>>;

/** The dispatches of one call. */
class Work {
  constructor(
    private readonly call: CheckedCall,
    private readonly options: AttentionOptions,
    private readonly plan: Plan,
    private readonly device: Device,
    private readonly dtype: Tensor['dtype'],
  ) {}

  forward(operands: Bindings, output: Tensor, logSumExp: Tensor): void {
    const launch = this.launch('forward');
    if (!launch.slices) {
      this.run('forward', launch, { ...operands, output, logSumExp });
      return;
    }
    const sliceOutput = this.slicesOf(output, launch);
    const sliceLogSumExp = this.slicesOf(logSumExp, launch);
    this.run('forward', launch, { ...operands, output: sliceOutput, logSumExp: sliceLogSumExp });
    joinForward(this.call, launch.splits, { sliceOutput, sliceLogSumExp, output, logSumExp });
    this.release(sliceOutput, sliceLogSumExp);
  }

  gradients(entry: 'backwardQuery' | 'backwardKeyValue', given: Bindings, results: Bindings): void {
    const launch = this.launch(entry);
    if (launch.splits === 1) {
      this.run(entry, launch, { ...given, ...results });
      return;
    }
    const slices = Object.fromEntries(
      Object.entries(results).map(([name, result]) => [name, this.slicesOf(result, launch)]),
    );
    this.run(entry, launch, { ...given, ...slices });
    for (const [name, gradient] of Object.entries(results))
      joinGradient(this.call, launch.splits, { sliceGradient: slices[name], gradient });
    this.release(...Object.values(slices));
  }

  private launch(entry: AttentionEntry): Launch {
    const { headDimension } = this.call;
    return attentionLaunch(this.device, { entry, dtype: this.dtype, headDimension }, this.call, this.plan.form);
  }

  private run(entry: AttentionEntry, launch: Launch, bindings: Bindings): void {
    const { batch, queryTokens, keyTokens, heads, kvHeads, headDimension } = this.call;
    const { places, queryTiles, keyTiles } = this.plan.form;
    const { expression, scale = 1 / Math.sqrt(headDimension) } = this.options;
    const dataStride = expression && expression.samples > 1 ? expression.layout.length : 0;
    const sizes = { batch, queryTokens, keyTokens, heads, kvHeads, scale, splits: launch.splits };
    const tiles = { queryTiles: queryTiles.length, keyTiles: keyTiles.length };
    this.device.dispatch({
      kernel: launch.kernel,
      entry,
      parameters: { ...launch.parameters, ...expression?.parameters },
      bindings,
      uniform: { ...sizes, ...tiles, ...places, dataStride, ...launch.uniform },
      workgroups: launch.workgroups,
      ...attentionEntryCost(entry, this.call, this.dtype, this.plan, launch.slices ? launch.splits : 0),
    });
  }

  private slicesOf(result: Tensor, { splits }: Launch): Tensor {
    return emptyTensor(this.device, [splits, ...result.shape], 'f32', 'attention slices');
  }

  private release(...slices: Tensor[]): void {
    for (const { buffer } of slices) this.device.currentStep('attention').release(buffer);
  }
}
