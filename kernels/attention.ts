import { type Device, emptyTensor, type Shape, type Tensor, viewTensor } from '../engine/index.ts';
import { type AttentionOptions, type CheckedCall, checkCall } from './attention-call.ts';
import { planOnDevice } from './attention-compiled.ts';
import { attentionEntryCost } from './attention-cost.ts';
import type { Plan } from './attention-plan.ts';
import { attentionDelta, joinForward, joinGradient } from './attention-rows.ts';
import { type AttentionEntry, attentionLaunch, type Launch } from './attention-variants.ts';
import { type Bindings, recordOne } from './operand.ts';

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
  recordOne('attention', [query, key, value], output, (dOutput, [wantsQuery, wantsKey, wantsValue]) => {
    const statistics = emptyTensor(device, [batch, heads, queryTokens, 2], 'f32', 'attention backward');
    const saved = { forwardOutput: output, forwardLogSumExp: logSumExp };
    attentionDelta(call, plan, { plan: words, ...saved, dOutput, statistics });
    return work.backward({ ...operands, dOutput, statistics }, wantsQuery, wantsKey || wantsValue);
  });
  return { output, logSumExp };
}

type Given = Readonly<Record<'plan' | 'query' | 'key' | 'value' | 'dOutput' | 'statistics', Tensor>>;

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
      this.run(launch, { ...operands, output, logSumExp });
      return;
    }
    const sliceOutput = this.slicesOf(output, launch);
    const sliceLogSumExp = this.slicesOf(logSumExp, launch);
    this.run(launch, { ...operands, output: sliceOutput, logSumExp: sliceLogSumExp });
    joinForward(this.call, launch.splits, { sliceOutput, sliceLogSumExp, output, logSumExp });
    this.release(sliceOutput, sliceLogSumExp);
  }

  /** The gradients of query, key and value; null for those that are not wanted. */
  backward(given: Given, wantsQuery: boolean, wantsKeyValue: boolean): (Tensor | null)[] {
    const query = wantsQuery ? this.launch('backwardQuery') : null;
    const keyValue = wantsKeyValue ? this.launch('backwardKeyValue') : null;
    const together = [query, keyValue].map((launch) => launch?.entry === 'backward');
    const shared = together[0] ? query : together[1] ? keyValue : null;
    const gradients = shared ? this.together(shared, given, together) : {};
    if (query && !gradients.dQuery) Object.assign(gradients, this.apart(query, given, { dQuery: given.query }));
    if (keyValue && !gradients.dKey)
      Object.assign(gradients, this.apart(keyValue, given, { dKey: given.key, dValue: given.value }));
    const { dQuery = null, dKey = null, dValue = null } = gradients;
    return [dQuery, dKey, dValue];
  }

  /** All gradients by one kernel, which leaves out those that are not wanted. */
  private together(launch: Launch, given: Given, [wantsQuery, wantsKeyValue]: boolean[]): Record<string, Tensor> {
    const { splits, uniform } = launch;
    const dQuery = this.gradient(wantsQuery ? given.query.shape : [4]);
    const dKeyValue = this.gradient(wantsKeyValue ? [2, 4 * uniform.dValueAt] : [4]);
    const slices = wantsKeyValue && splits > 1 ? this.slicesOf(dKeyValue, launch) : dKeyValue;
    const wanted = { ...uniform, wantsQuery: Number(wantsQuery), wantsKeyValue: Number(wantsKeyValue) };
    this.run({ ...launch, uniform: wanted }, { ...given, dQuery, dKeyValue: slices });
    if (slices !== dKeyValue) this.join({ dKeyValue: slices }, { dKeyValue }, launch);
    const view = ({ shape }: Tensor, at: number) => viewTensor(dKeyValue, shape, at, 'attention backward');
    const ofKeyValue = () => ({ dKey: view(given.key, 0), dValue: view(given.value, 16 * uniform.dValueAt) });
    return { ...(wantsQuery && { dQuery }), ...(wantsKeyValue && ofKeyValue()) };
  }

  /** The gradients of the operands `like`, by a kernel of their own. */
  private apart(launch: Launch, given: Given, like: Bindings): Record<string, Tensor> {
    const mapped = (of: Bindings, make: (tensor: Tensor) => Tensor) =>
      Object.fromEntries(Object.entries(of).map(([name, tensor]) => [name, make(tensor)]));
    const results = mapped(like, ({ shape }) => this.gradient(shape));
    const slices = launch.splits > 1 ? mapped(results, (result) => this.slicesOf(result, launch)) : results;
    this.run(launch, { ...given, ...slices });
    if (slices !== results) this.join(slices, results, launch);
    return results;
  }

  private join(slices: Bindings, gradients: Bindings, { splits }: Launch): void {
    for (const [name, gradient] of Object.entries(gradients))
      joinGradient(this.call, splits, { sliceGradient: slices[name], gradient });
    this.release(...Object.values(slices));
  }

  private gradient(shape: Shape): Tensor {
    return emptyTensor(this.device, shape, 'f32', 'attention backward');
  }

  private launch(entry: AttentionEntry): Launch {
    const { headDimension } = this.call;
    return attentionLaunch(this.device, { entry, dtype: this.dtype, headDimension }, this.call, this.plan.form);
  }

  private run(launch: Launch, bindings: Bindings): void {
    const { batch, queryTokens, keyTokens, heads, kvHeads, headDimension } = this.call;
    const { places, queryTiles, keyTiles } = this.plan.form;
    const { expression, scale = 1 / Math.sqrt(headDimension) } = this.options;
    const dataStride = expression && expression.samples > 1 ? expression.layout.length : 0;
    const sizes = { batch, queryTokens, keyTokens, heads, kvHeads, scale, splits: launch.splits };
    const tiles = { queryTiles: queryTiles.length, keyTiles: keyTiles.length };
    this.device.dispatch({
      kernel: launch.kernel,
      entry: launch.entry,
      parameters: { ...launch.parameters, ...expression?.parameters },
      bindings,
      uniform: { ...sizes, ...tiles, ...places, dataStride, ...launch.uniform },
      workgroups: launch.workgroups,
      ...attentionEntryCost(launch, this.call, this.dtype, this.plan),
    });
  }

  private slicesOf(result: Tensor, { splits }: Launch): Tensor {
    return emptyTensor(this.device, [splits, ...result.shape], 'f32', 'attention slices');
  }

  private release(...slices: Tensor[]): void {
    for (const { buffer } of slices) this.device.currentStep('attention').release(buffer);
  }
}
