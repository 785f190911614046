/** A vision-language model that learns from several questions about a picture at once, and from what each of its patches shows. */
import { causal, full } from '../../kernels/index.ts';
import type { ObjectiveSettings } from '../architecture/objectives/settings.ts';
import type { System, SystemBlock } from './system.ts';

/** Lengths of a question, in tokens. */
export interface SlotLengths {
  readonly prompt: number;
  readonly answer: number;
}

/** Numbers of classes of what a patch shows. */
export interface PatchClasses {
  readonly kinds: number;
  readonly colours: number;
}

/** The classes of a patch by the question of the first slot: unnamed, the first thing that it names, the second. */
export const MARKS = 3;

export const PACKED_QUESTIONS = 'packed-questions';

/** The names of the two blocks of a slot, counted from 0. */
export const slotBlocks = (slot: number) => ({ prompt: `prompt ${slot + 1}`, answer: `answer ${slot + 1}` });

/**
 * Every question sees the picture and itself, and begins right behind the picture. The picture sees the first question, as a robot's
 * picture sees its task. `classes` null: the token loss alone. `depth`: layers of the backbone; marks are read before the last.
 */
export function packedQuestions(slots: readonly SlotLengths[], classes: PatchClasses | null, depth: number): System {
  const ofSlots = slots.map((lengths, slot) => ({ lengths, ...slotBlocks(slot) }));
  const blocks = ofSlots.flatMap(({ lengths, prompt, answer }): SystemBlock[] => [
    { name: prompt, input: 'prompt', weights: 'backbone', length: lengths.prompt, after: ['image'] },
    { name: answer, input: 'target', weights: 'backbone', length: lengths.answer, after: ['image', prompt] },
  ]);
  return {
    name: PACKED_QUESTIONS,
    parent: null,
    description: 'several questions about a picture, and what its patches show',
    source: 'PaliGemma (arXiv 2407.07726), with dense targets for its picture',
    blocks: [{ name: 'image', input: 'images', weights: 'backbone' }, ...blocks],
    attention: {
      image: { image: full, [ofSlots[0].prompt]: full },
      ...Object.fromEntries(
        ofSlots.flatMap(({ prompt, answer }) => [
          [prompt, { image: full, [prompt]: full }],
          [answer, { image: full, [prompt]: full, [answer]: causal }],
        ]),
      ),
    },
    objectives: [{ kind: 'nextToken', name: 'token', weight: 1 }, ...(classes ? dense(classes, depth) : [])],
    actionTokens: null,
    stateAsText: true,
    time: null,
  };
}

/** Heads on the picture alone, which the finished model is without. */
function dense({ kinds, colours }: PatchClasses, depth: number): ObjectiveSettings[] {
  const [common, rows] = [{ weight: 1, auxiliary: true }, { tower: 'vision' }];
  return [
    { kind: 'classification', name: 'kind', ...common, rows, classes: kinds },
    { kind: 'classification', name: 'colour', ...common, rows, classes: colours },
    { kind: 'regression', name: 'offset', ...common, rows, error: 'squared', dimension: 2 },
    {
      ...{ kind: 'classification', name: 'mark', ...common, classes: MARKS, balanced: true },
      rows: { block: 'image', layer: depth - 1 },
    },
  ];
}
