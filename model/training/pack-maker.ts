/** Makes training batches of packs. */
import { InputError, quote } from '../../engine/files/errors.ts';
import { randomStream, streams } from '../../engine/index.ts';
import { blockNamed, type ModelConfiguration, type VisionSettings } from '../architecture/configuration.ts';
import type { TrainingBatch } from '../architecture/inputs.ts';
import { resizeWithPadding } from '../data/index.ts';
import type { Encoding } from '../policy/encoding.ts';
import { type SlotLengths, slotBlocks } from '../systems/index.ts';
import { augment, colourAugmentation } from './augmentation.ts';
import type { Pack, PackedQuestion, PackSource, Thing } from './packs.ts';
import type { RunSettings } from './run-settings.ts';
import { type Target, targetTokens } from './targets.ts';
import type { Maker, Making } from './trainer.ts';

/** The name of the one camera of a model that is asked about pictures. */
export const CAMERA = 'image';

/** So many packs decide the lengths of slots, with a sixteenth added for longer questions to come. */
const FITTED_PACKS = 4096;
const withMargin = (length: number) => length + Math.ceil(length / 16);

const observationOf = ({ prompt, state = null, request }: PackedQuestion) => ({ instruction: prompt, state, request });

/** The lengths of the slots of a source. */
export function fitSlots(source: PackSource, encoding: Encoding): SlotLengths[] {
  const { slots, heldOut } = source;
  const lengths = new Map<string, number>();
  const lengthOf = (text: string, encode: () => ArrayLike<number>) => {
    const length = lengths.get(text) ?? encode().length;
    lengths.set(text, length);
    return length;
  };
  const longest = Array.from({ length: slots }, () => ({ prompt: 1, answer: 1 }));
  const lengthen = ({ questions }: Pick<Pack, 'questions'>) =>
    longest.forEach((slot, i) => {
      const question = questions[i];
      if (!question) return;
      const { prompt, answer, request } = question;
      // The length of a prompt does not depend on the state, because every bin is one token.
      const promptLength = lengthOf(`${request} ${prompt}`, () => encoding.promptIds(observationOf(question)));
      slot.prompt = Math.max(slot.prompt, withMargin(promptLength));
      slot.answer = Math.max(slot.answer, withMargin(lengthOf(answer, () => encoding.answerTokens(answer))));
    });
  heldOut.forEach(lengthen);
  if (source.questions)
    for (const own of source.questions()) lengthen({ questions: Array<PackedQuestion>(slots).fill(own) });
  else for (let index = 0; index < FITTED_PACKS; index++) lengthen(source.at(index));
  return longest;
}

export class PackMaker implements Maker<Pack> {
  constructor(
    private readonly encoding: Encoding,
    private readonly configuration: ModelConfiguration,
    private readonly settings: Pick<RunSettings, 'seed' | 'augment'>,
    private readonly slots: number,
  ) {}

  async make(
    packs: readonly Pack[],
    step: number,
    { use = 'measuring', first = 0 }: Making = {},
  ): Promise<TrainingBatch> {
    const { encoding, configuration, settings, slots } = this;
    const vision = configuration.vision!;
    const random = randomStream(settings.seed, step, streams.augmentation);
    const augmented = use === 'training' && settings.augment;
    const observations = await Promise.all(
      packs.map(async (pack, i) => {
        const image = resizeWithPadding(await pack.image(), vision.imageWidth, vision.imageHeight);
        // Places stay what the answers and the things say.
        return { images: { [CAMERA]: augmented ? augment(image, random, first + i, colourAugmentation) : image } };
      }),
    );
    const ofSlots = Array.from({ length: slots }, (_, slot) => {
      const { prompt, answer } = slotBlocks(slot);
      const questions = packs.map((pack) => pack.questions[slot] ?? null);
      const asked = questions.map((question) => question && observationOf(question));
      const prompts = encoding.prompts(asked, blockNamed(configuration, prompt).length);
      return { prompt, prompts, target: this.target(answer, questions) };
    });
    const observation = {
      batch: packs.length,
      ...encoding.images(observations, configuration),
      ids: Object.fromEntries(ofSlots.map(({ prompt, prompts }) => [prompt, prompts])),
    };
    const targets = ofSlots.map(({ target }) => target);
    return {
      ...observation,
      ...targetTokens(configuration, encoding.endOfSequence, observation, targets),
      ...{ actions: null, noise: null, time: null, actionValid: null, realDimensions: null },
      rowTargets: patchTargets(packs, vision),
    };
  }

  private target(block: string, questions: readonly (PackedQuestion | null)[]): Target {
    const own = blockNamed(this.configuration, block);
    const examples = questions.map((question) => {
      if (!question) return null;
      const { prompt, answer } = question;
      const tokens = this.encoding.answerTokens(answer);
      if (tokens.length > own.length)
        throw new InputError(
          `the answer ${quote(answer)} to ${quote(prompt)} has ${tokens.length} tokens; block ${quote(block)} takes at most ${own.length}`,
        );
      return { ids: [...tokens] };
    });
    return { block: own, examples };
  }
}

type RowTargets = NonNullable<TrainingBatch['rowTargets']>;

/** The thing that each patch shows: the one whose square holds its centre, of several the one of the smaller square. */
function patchTargets(packs: readonly Pack[], { imageHeight, imageWidth, patch }: VisionSettings): RowTargets {
  const [down, across] = [imageHeight / patch, imageWidth / patch];
  const patches = down * across;
  const rows = packs.length * patches;
  const classes = () => ({ data: new Uint32Array(rows), valid: new Uint8Array(rows).fill(1) });
  const [kind, colour, mark] = [classes(), classes(), classes()];
  const offset = { data: new Float32Array(rows * 2), valid: new Uint8Array(rows) };
  packs.forEach(({ things, marked }, example) => {
    things.forEach(expectInside);
    const fromSmall = [...things].sort((a, b) => a.reach - b.reach);
    const first = example * patches;
    if (marked.length === 0) mark.valid.fill(0, first, first + patches);
    for (let row = first; row < first + patches; row++) {
      const place = [Math.floor((row - first) / across) + 0.5, ((row - first) % across) + 0.5];
      const shares = [place[0] / down, place[1] / across];
      const thing = fromSmall.find(({ centre, reach }) =>
        centre.every((own, axis) => Math.abs(shares[axis] - own) < reach),
      );
      if (!thing) continue;
      kind.data[row] = thing.kind;
      colour.data[row] = thing.colour;
      mark.data[row] = marked.indexOf(things.indexOf(thing)) + 1;
      offset.data.set([thing.centre[0] * down - place[0], thing.centre[1] * across - place[1]], 2 * row);
      offset.valid[row] = 1;
    }
  });
  return { kind, colour, offset, mark };
}

function expectInside({ centre }: Thing): void {
  if (!centre.every((own) => own >= 0 && own <= 1))
    throw new InputError(`a thing lies at ${centre.join(', ')}, outside the picture; places are shares from 0 to 1`);
}
