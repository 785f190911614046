/** What a vision-language model sees in frames of the built-in world: its answers, and where it points. */
import { randomStream, streams } from '../../engine/random.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { parsePlaces } from '../../tokenizers/index.ts';
import { IMAGE_SIZE } from './camera.ts';
import type { Frame } from './frames.ts';
import { type QuestionKind, questionAbout, questionKinds, type WorldQuestion } from './questions.ts';
import { draws } from './scene.ts';

/** A question about a frame, and a model's answer. */
export interface Answered {
  readonly frame: Frame;
  readonly question: WorldQuestion;
  readonly answer: string;
}

/** Places that a model pointed to, of things of one sort. */
export interface PointingScore {
  readonly count: number;
  /** The share of places that are at most `GROSS` pixels off; null without places. */
  readonly near: number | null;
  /** The median distance, in pixels; null without places. */
  readonly median: number | null;
}

export interface SeeingScores {
  /** By kind: the share of answers that are right to the letter, and of tokens at their place. */
  readonly kinds: Readonly<Record<string, { readonly answers: number; readonly tokens: number }>>;
  /** The same share of tokens over all questions but those that are answered by places. */
  readonly otherTokens: number;
  /** Objects while the gripper is free, objects in the gripper, and fixtures. */
  readonly pointing: Readonly<Record<'free' | 'held' | 'fixtures', PointingScore>>;
}

/** A place that is farther off than this many pixels (2.8 cm) is of something else. */
export const GROSS = 4;
const BATCH = 64;
/** The most random numbers that one question draws. */
const WORDS = 32;
const answeredByPlaces: readonly QuestionKind[] = ['point', 'task'];

/** Asks a question of every kind about every frame, the same ones for the same seed. */
export async function askAbout(
  policy: Policy,
  frames: readonly Frame[],
  seed: number,
  signal?: AbortSignal,
): Promise<Answered[]> {
  const random = randomStream(seed, 2 * draws.questions + 2, streams.world);
  const [camera] = policy.encoding.settings.cameras;
  const all: Answered[] = [];
  // Questions of one kind have answers of like length, so that no short answer waits for a long one.
  for (const [i, kind] of questionKinds.entries())
    for (let start = 0; start < frames.length; start += BATCH) {
      signal?.throwIfAborted();
      const asked = frames.slice(start, start + BATCH).map((frame, at) => {
        let drawn = ((start + at) * questionKinds.length + i) * WORDS;
        return { frame, question: questionAbout(frame, kind, (below) => random.integer(drawn++, below)) };
      });
      const observations = asked.map(({ frame, question }) => ({
        images: { [camera]: { width: IMAGE_SIZE, height: IMAGE_SIZE, pixels: frame.pixels } },
        state: frame.state,
        instruction: question.prompt,
        request: question.kind === 'task' ? ('subtask' as const) : ('answer' as const),
      }));
      const answers = await policy.generateText(observations);
      all.push(...asked.map((own, at) => ({ ...own, answer: answers[at] })));
    }
  return all;
}

/** The places of an answer in order, as shares of the picture. Neighbours need no separator. */
export function placesIn(answer: string): (readonly [number, number])[] {
  const separated = answer.replace(/((?:<loc\d{4}>){2})(?=<loc)/g, '$1 ; ');
  return parsePlaces(separated).places.map(({ coordinates }) => [coordinates[0], coordinates[1]]);
}

export function scoresOf(answered: readonly Answered[], policy: Policy): SeeingScores {
  const shares = (own: readonly Answered[]) => {
    const tokens = own.map(({ question, answer }) => sameTokens(policy, question.answer, answer));
    const sum = (part: 'right' | 'of') => tokens.reduce((total, each) => total + each[part], 0);
    return {
      answers: own.filter(({ question, answer }) => question.answer === answer).length / own.length,
      tokens: sum('right') / sum('of'),
    };
  };
  const ofKind = (kind: QuestionKind) => answered.filter(({ question }) => question.kind === kind);
  const others = answered.filter(({ question }) => !answeredByPlaces.includes(question.kind));
  const distances: Record<'free' | 'held' | 'fixtures', number[]> = { free: [], held: [], fixtures: [] };
  for (const { frame, question, answer } of answered) {
    if (!answeredByPlaces.includes(question.kind)) continue;
    const places = placesIn(answer);
    question.named.forEach(({ isObject, place }, i) => {
      const sort = !isObject ? 'fixtures' : frame.held >= 0 ? 'held' : 'free';
      distances[sort].push(
        places[i] ? IMAGE_SIZE * Math.hypot(places[i][0] - place[0], places[i][1] - place[1]) : Infinity,
      );
    });
  }
  return {
    kinds: Object.fromEntries(
      questionKinds.filter((kind) => ofKind(kind).length > 0).map((kind) => [kind, shares(ofKind(kind))]),
    ),
    otherTokens: shares(others).tokens,
    pointing: {
      free: pointing(distances.free),
      held: pointing(distances.held),
      fixtures: pointing(distances.fixtures),
    },
  };
}

function pointing(distances: number[]): PointingScore {
  if (distances.length === 0) return { count: 0, near: null, median: null };
  const sorted = distances.toSorted((a, b) => a - b);
  const near = distances.filter((distance) => distance <= GROSS).length / distances.length;
  return { count: distances.length, near, median: sorted[Math.floor(sorted.length / 2)] };
}

/** How many tokens of an answer, its end included, are those of the right one. */
function sameTokens({ encoding }: Policy, wanted: string, answer: string): { right: number; of: number } {
  const [own, other] = [wanted, answer].map((text) => [...encoding.answerTokens(text), encoding.endOfSequence]);
  return { right: own.filter((id, i) => other[i] === id).length, of: own.length };
}
