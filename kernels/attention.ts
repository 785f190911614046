import { type Device, emptyTensor, hostTensor, record, Tensor, tensor } from '../engine/index.ts';
import { type AttentionOptions, type CheckedCall, checkCall } from './attention-call.ts';
import { attentionEntryCost } from './attention-cost.ts';
import { fillPlan, type Plan, type PlanForm, type PlanRequest, planForm } from './attention-plan.ts';
import { attentionDelta, joinForward, joinGradient } from './attention-rows.ts';
import type { AttentionTable } from './attention-table.ts';
import { type AttentionEntry, attentionLaunch, type Launch } from './attention-variants.ts';

export type { AttentionOptions } from './attention-call.ts';

const REMEMBERED = 64;

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
  const form = formOf(call, options);
  const wants = { query: query.wantsGradient, key: key.wantsGradient, value: value.wantsGradient };
  const { words, plan } = upload(device, form, call, options, wants);
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
    const dataStride = expression && expression.samples > 1 ? keyTokens : 0;
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

interface RememberedPlan {
  readonly request: PlanRequest;
  readonly plan: Plan;
}

interface Upload {
  readonly key: readonly unknown[];
  readonly words: Tensor;
  readonly plan: Plan;
}

const formsByTable = new WeakMap<AttentionTable, Map<string, PlanForm>>();
const formsByContent = new Map<string, Map<string, PlanForm>>();
const plansByForm = new WeakMap<PlanForm, RememberedPlan[]>();
const uploads = new WeakMap<object, Upload[]>();

/** The form of a call's plan, compiled once for each table, batch size and choice of query rows. */
function formOf({ batch, queryRows }: CheckedCall, { table, expression }: AttentionOptions): PlanForm {
  const room = {
    dataSamples: expression?.source.tokenData ? expression.samples : 0,
    constants: expression?.source.constants?.length ?? 0,
  };
  let forms = formsByTable.get(table);
  if (!forms) {
    // Tables of equal content share their forms.
    forms = remembered(formsByContent, JSON.stringify([table.layout.blocks, table.cells]), () => new Map());
    formsByTable.set(table, forms);
  }
  return remembered(forms, JSON.stringify([batch, queryRows, room]), () => planForm(table, batch, queryRows, room));
}

/** The plan of a call on the device, once for each step. */
function upload(
  device: Device,
  form: PlanForm,
  { lossBlocks }: CheckedCall,
  { validity, expression }: AttentionOptions,
  wants: PlanRequest['wants'],
): Upload {
  const step = device.currentStep('attention');
  const key = [form, validity, String(lossBlocks), wants.query, wants.key, wants.value, expression];
  const known = uploads.get(step) ?? [];
  uploads.set(step, known);
  const found = known.find((upload) => upload.key.every((part, i) => part === key[i]));
  if (found?.words.alive) return found;
  const shape = [form.words];
  let plan: Plan;
  const wordsOf = (numbers: ArrayLike<number> | null) => {
    plan = planOf(form, { validity: numbers, lossBlocks, wants, expression });
    return plan.words;
  };
  // Every layer of the step uses it, also those whose other memory is released on the way.
  const words = step.untracked(() =>
    validity instanceof Tensor
      ? hostTensor(device, [validity], wordsOf, shape, { dtype: 'u32' })
      : tensor(device, wordsOf(validity ?? null), shape, { dtype: 'u32' }),
  );
  const made = { key, words, plan: plan! };
  known.push(made);
  return made;
}

/** The plan of a batch, filled once for each padding, loss and set of wants. */
function planOf(form: PlanForm, request: PlanRequest): Plan {
  const plans = plansByForm.get(form) ?? [];
  plansByForm.set(form, plans);
  const { wants, expression, lossBlocks, validity } = request;
  const known = plans.find(
    ({ request: other }) =>
      other.expression === expression &&
      other.wants.query === wants.query &&
      other.wants.key === wants.key &&
      other.wants.value === wants.value &&
      String(other.lossBlocks) === String(lossBlocks) &&
      sameValidity(other.validity, validity),
  );
  if (known) return known.plan;
  const copied = { ...request, validity: validity && Uint8Array.from(validity, (valid) => (valid ? 1 : 0)) };
  const plan = fillPlan(form, copied);
  if (plans.length >= REMEMBERED) plans.shift();
  plans.push({ request: copied, plan });
  return plan;
}

function remembered<T>(map: Map<string, T>, key: string, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    if (map.size >= REMEMBERED) map.delete(map.keys().next().value!);
    map.set(key, value);
  }
  return value;
}

/** Whether the same are zero. */
function sameValidity(a: ArrayLike<number> | null, b: ArrayLike<number> | null): boolean {
  if (a === b) return true;
  if (!a || !b || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (!a[i] !== !b[i]) return false;

  return true;
}
