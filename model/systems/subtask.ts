/** A system that says a subtask, in words or as places, before it acts; made from any other (pi0.5, arXiv 2504.16054). */
import { causal, full } from '../../kernels/index.ts';
import { NUMBERS, SUBTASK, type System, type SystemBlock } from './system.ts';

export interface SubtaskSizes {
  /** The most tokens of a subtask. */
  readonly tokens: number;
  /** Features of places and state, which the action expert gets as a token; 0 for none. */
  readonly dimension: number;
}

/**
 * The subtask's tokens are a target behind the prompt. Blocks behind them that read the prompt read them by the same edge, and count
 * them in their positions. An expert of noisy actions gets the places with the state as a token of its own, as pi0's expert gets the
 * state: it is slow to learn numbers from keys and values that it may not train. null if the prompt sees a block behind it, because it
 * would also see the subtask that it is to predict; and for a system with a history, which would have to say a subtask at every step.
 */
export function withSubtask(system: System, { tokens, dimension }: SubtaskSizes): System | null {
  const { blocks, attention, objectives } = system;
  if (system.history) return null;
  const isGiven = ({ input, weights }: SystemBlock) =>
    input === 'prompt' || (input === 'state' && weights === 'backbone');
  const given = blocks.findLastIndex(isGiven);
  const prompt = blocks.find(({ input }) => input === 'prompt')!.name;
  if (blocks.slice(given + 1).some(({ name }) => attention[prompt][name])) return null;
  const noisy =
    dimension > 0 ? blocks.find(({ input, weights }) => input === 'noisyActions' && weights !== 'backbone') : undefined;
  const subtask: SystemBlock = { name: SUBTASK, input: 'target', weights: 'backbone', length: tokens };
  const later = blocks.slice(given + 1);
  const rows = later.map(({ name }): [string, System['attention'][string]] => {
    const row = attention[name];
    const own = {
      ...row,
      ...(row[prompt] && { [SUBTASK]: row[prompt] }),
      ...(name === noisy?.name && { [NUMBERS]: full }),
    };
    return [name, own];
  });
  const ofNumbers = () => {
    const changing = blocks.filter(({ input }) => input === 'noisyActions' || input === 'time').map(({ name }) => name);
    const row = Object.entries(Object.fromEntries(rows)[noisy!.name]).filter(([key]) => !changing.includes(key));
    return { [NUMBERS]: Object.fromEntries(row) };
  };
  const token = objectives.find((own) => own.kind === 'nextToken') ?? {
    kind: 'nextToken' as const,
    name: 'token',
    weight: 1,
  };
  return {
    ...system,
    blocks: [
      ...blocks.slice(0, given + 1),
      subtask,
      ...later.flatMap((block) =>
        block.name === noisy?.name
          ? [{ name: NUMBERS, input: 'numbers' as const, weights: block.weights, dimension }, block]
          : [block],
      ),
    ],
    attention: {
      ...attention,
      ...Object.fromEntries(rows),
      [SUBTASK]: { ...asWhole(attention[prompt]), [SUBTASK]: causal },
      ...(noisy && ofNumbers()),
    },
    objectives: [{ ...token, perTarget: true }, ...objectives.filter((own) => own.kind !== 'nextToken')],
  };
}

/** A causal edge is one from a block to itself: another block behind it sees all of it. */
const asWhole = (row: System['attention'][string]): System['attention'][string] =>
  Object.fromEntries(
    Object.entries(row).map(([key, edge]) => [key, edge.mask === 'causal' ? { ...edge, mask: 'full' } : edge]),
  );
