/** What a vision-language model sees in frames of the built-in world: its answers, and where it points. */
import { randomStream, streams } from '../../engine/random.ts';
import {
  type AnswerScore,
  type AskOptions,
  answerScore,
  answersTo,
  scoresByKind,
} from '../../model/inspect/answers.ts';
import type { Encoding } from '../../model/policy/encoding.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { parsePlaces } from '../../tokenizers/index.ts';
import { IMAGE_SIZE } from './camera.ts';
import { type Frame, pictureOf } from './frames.ts';
import { askedOf, type QuestionKind, questionAbout, questionKinds, type WorldQuestion } from './questions.ts';
import { draws } from './scene.ts';

/** A question about a frame, and a model's answer. */
export interface AnsweredAbout {
  readonly frame: Frame;
  readonly question: WorldQuestion;
  readonly answer: string;
}

/** Places that a model pointed to, of things of one sort. */
export interface PointingScore {
  readonly count: number;
  /** The share of places that are at most `GROSS` pixels off; null without places. */
  readonly near: number | null;
  /** The median distance, in pixels; null without places, and where most answers name none. */
  readonly median: number | null;
}

export interface SeeingScores {
  readonly kinds: Readonly<Record<string, AnswerScore>>;
  /** All questions but those that are answered by places. */
  readonly others: AnswerScore;
  /** Objects while the gripper is free, objects in the gripper, and fixtures. */
  readonly pointing: Readonly<Record<PointedAt, PointingScore>>;
}
type PointedAt = 'free' | 'held' | 'fixtures';

/** A place that is farther off than this many pixels (2.8 cm) is of something else. */
export const GROSS = 4;
/** The most random numbers that one question draws. */
const WORDS = 32;
export const answeredByPlaces: readonly QuestionKind[] = ['point', 'task'];

/** Asks a question of every kind about every frame, the same ones for the same seed. */
export async function askAbout(
  policy: Policy,
  frames: readonly Frame[],
  seed: number,
  options?: AskOptions,
): Promise<AnsweredAbout[]> {
  const random = randomStream(seed, 2 * draws.questions + 2, streams.world);
  const asked = questionKinds.flatMap((kind, i) =>
    frames.map((frame, at) => {
      let drawn = (at * questionKinds.length + i) * WORDS;
      return { frame, question: questionAbout(frame, kind, (below) => random.integer(drawn++, below)) };
    }),
  );
  const questions = asked.map(({ frame, question }) => ({ ...askedOf(question, frame), image: pictureOf(frame) }));
  const answers = await answersTo(policy, questions, options);
  return asked.map((own, i) => ({ ...own, answer: answers[i] }));
}

/** The places of an answer in order, as shares of the picture. Neighbours need no separator. */
export function placesIn(answer: string): (readonly [number, number])[] {
  const separated = answer.replace(/((?:<loc\d{4}>){2})(?=<loc)/g, '$1 ; ');
  return parsePlaces(separated).places.map(({ coordinates }) => [coordinates[0], coordinates[1]]);
}

/** How far off an answer is from the places of the things that its question names, in pixels; infinitely far where it has no place. */
export function distancesOf({ question, answer }: AnsweredAbout): number[] {
  const places = placesIn(answer);
  return question.named.map(({ place }, i) =>
    places[i] ? IMAGE_SIZE * Math.hypot(places[i][0] - place[0], places[i][1] - place[1]) : Infinity,
  );
}

export function scoresOf(answered: readonly AnsweredAbout[], encoding: Encoding): SeeingScores {
  const isPointing = ({ question }: AnsweredAbout) => answeredByPlaces.includes(question.kind);
  const distances: Record<PointedAt, number[]> = { free: [], held: [], fixtures: [] };
  for (const own of answered.filter(isPointing)) {
    const { held } = own.frame;
    const all = distancesOf(own);
    own.question.named.forEach(({ isObject, index }, i) => {
      if (!isObject) distances.fixtures.push(all[i]);
      else if (held < 0) distances.free.push(all[i]);
      else if (held === index) distances.held.push(all[i]);
    });
  }
  const { free, held, fixtures } = distances;
  return {
    kinds: scoresByKind(encoding, answered),
    others: answerScore(
      encoding,
      answered.filter((own) => !isPointing(own)),
    ),
    pointing: { free: pointing(free), held: pointing(held), fixtures: pointing(fixtures) },
  };
}

function pointing(distances: readonly number[]): PointingScore {
  if (distances.length === 0) return { count: 0, near: null, median: null };
  const median = distances.toSorted((a, b) => a - b)[Math.floor(distances.length / 2)];
  const near = distances.filter((distance) => distance <= GROSS).length / distances.length;
  return { count: distances.length, near, median: Number.isFinite(median) ? median : null };
}
