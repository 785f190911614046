/** Attention tables compiled: each table object once for every batch size and choice of query rows, its plans once for every padding. */
import { type Device, hostTensor, Tensor, tensor } from '../engine/index.ts';
import type { AttentionOptions, CheckedCall } from './attention-call.ts';
import { fillPlan } from './attention-fill.ts';
import { type Plan, type PlanForm, type PlanRequest, planForm } from './attention-plan.ts';
import type { AttentionTable } from './attention-table.ts';

/** Plans that a compiled table remembers: so many, in so many words, but at least the last. */
const REMEMBERED = 64;
const REMEMBERED_WORDS = 2 ** 24;

/** A table compiled for a batch size and a choice of query rows, and its plans for the batches that came last. */
interface Compiled {
  readonly form: PlanForm;
  readonly plans: Remembered[];
}

interface Remembered extends Omit<PlanRequest, 'validity'> {
  /** Bits of the validity; null where every token is real. */
  readonly real: Uint32Array | null;
  readonly plan: Plan;
}

interface Upload {
  readonly key: readonly unknown[];
  readonly words: Tensor;
  readonly plan: Plan;
}

const compiledTables = new WeakMap<AttentionTable, Map<string, Compiled>>();
/** The plans that lie on the device in a step. */
class Uploads extends Array<Upload> {}

/** The compiled form of a call's table; a table object keeps it, so a model makes its tables once. */
function compiledFor({ batch, queryRows }: CheckedCall, { table, expression }: AttentionOptions): Compiled {
  const room = {
    dataSamples: expression?.source.tokenData ? expression.samples : 0,
    constants: expression?.source.constants?.length ?? 0,
  };
  const compiled = compiledTables.get(table) ?? new Map<string, Compiled>();
  compiledTables.set(table, compiled);
  const key = JSON.stringify([batch, queryRows, room]);
  const known = compiled.get(key) ?? { form: planForm(table, batch, queryRows, room), plans: [] };
  compiled.set(key, known);
  return known;
}

/** The plan of a call and its words on the device, where each step has them once for all layers that share them. */
export function planOnDevice(
  device: Device,
  call: CheckedCall,
  options: AttentionOptions,
  wants: PlanRequest['wants'],
): { words: Tensor; plan: Plan } {
  const compiled = compiledFor(call, options);
  const [bytes, most] = [4 * compiled.form.words, device.limits.maxStorageBufferBindingSize];
  if (bytes > most)
    throw new Error(
      `attention: the table has a plan of ${bytes} bytes for a batch of ${call.batch}; this device binds ${most}: use a smaller batch, or a window`,
    );
  const { lossBlocks } = call;
  const { validity, expression } = options;
  const step = device.currentStep('attention');
  const key = [compiled, validity, String(lossBlocks), wants.query, wants.key, wants.value, expression];
  const known = step.part(Uploads);
  const found = known.find((upload) => upload.key.every((part, i) => part === key[i]));
  if (found?.words.alive) return found;
  const shape = [compiled.form.words];
  let plan: Plan;
  const wordsOf = (numbers: ArrayLike<number> | null) => {
    plan = planOf(compiled, { validity: numbers, lossBlocks, wants, expression });
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
function planOf({ form, plans }: Compiled, request: PlanRequest): Plan {
  const { wants, expression, lossBlocks, validity } = request;
  const real = validity && realBits(validity);
  const known = plans.find(
    (other) =>
      other.expression === expression &&
      other.wants.query === wants.query &&
      other.wants.key === wants.key &&
      other.wants.value === wants.value &&
      String(other.lossBlocks) === String(lossBlocks) &&
      sameBits(other.real, real),
  );
  if (known) return known.plan;
  const plan = fillPlan(form, request);
  while (plans.length > 0 && (plans.length >= REMEMBERED || (plans.length + 1) * form.words > REMEMBERED_WORDS))
    plans.shift();
  plans.push({ wants, expression, lossBlocks, real, plan });
  return plan;
}

/** A bit for each token, so that remembered plans are told apart without a walk through all tokens for each. */
function realBits(validity: ArrayLike<number>): Uint32Array {
  const bits = new Uint32Array(Math.ceil(validity.length / 32));
  for (let i = 0; i < validity.length; i++) if (validity[i]) bits[i >>> 5] |= 1 << (i & 31);
  return bits;
}

function sameBits(a: Uint32Array | null, b: Uint32Array | null): boolean {
  return a === b || (a !== null && b !== null && a.every((word, i) => word === b[i]));
}
