/** The answers of a vision-language model about frames of the built-in world, and the places that it points to. */
import { randomStream, streams } from '../../engine/random.ts';
import { type AskOptions, answerScore, answersTo, scoresByKind } from '../../model/inspect/answers.ts';
import type { Encoding } from '../../model/policy/encoding.ts';
import type { Policy } from '../../model/policy/policy.ts';
import { parsePlaces } from '../../tokenizers/index.ts';
import { IMAGE_SIZE } from './camera.ts';
import { type Frame, pictureOf } from './frames.ts';
import { drawsOf } from './look.ts';
import { askedOf, type QuestionKind, questionAbout, questionKinds } from './questions.ts';
import { draws } from './scene.ts';

/** A question about a frame, and a model's answer. */
export type AnsweredAbout = Awaited<ReturnType<typeof askAbout>>[number];

/** A place that is farther off than this many pixels (2.8 cm) is of something else. */
export const GROSS = 4;
/** The most random numbers that one question draws. */
const WORDS = 32;
export const answeredByPlaces: readonly QuestionKind[] = ['point', 'task'];

/** Asks a question of every kind about every frame, the same ones for the same seed. */
export async function askAbout(policy: Policy, frames: readonly Frame[], seed: number, options?: AskOptions) {
  const random = randomStream(seed, 2 * draws.questions + 2, streams.world);
  const asked = questionKinds.flatMap((kind, i) =>
    frames.map((frame, at) => {
      const { integer } = drawsOf(random, (at * questionKinds.length + i) * WORDS);
      return { frame, question: questionAbout(frame, kind, integer) };
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

export type SeeingScores = ReturnType<typeof scoresOf>;

export function scoresOf(answered: readonly AnsweredAbout[], encoding: Encoding) {
  const isPointing = ({ question }: AnsweredAbout) => answeredByPlaces.includes(question.kind);
  // Distances of objects while the gripper is free, of the object in the gripper, and of fixtures.
  const [free, held, fixtures]: number[][] = [[], [], []];
  for (const own of answered.filter(isPointing)) {
    const all = distancesOf(own);
    own.question.named.forEach(({ isObject, index }, i) => {
      if (!isObject) fixtures.push(all[i]);
      else if (own.frame.held < 0) free.push(all[i]);
      else if (own.frame.held === index) held.push(all[i]);
    });
  }
  const others = answered.filter((own) => !isPointing(own));
  return {
    kinds: scoresByKind(encoding, answered),
    // All questions but those that are answered by places.
    others: answerScore(encoding, others),
    pointing: { free: pointing(free), held: pointing(held), fixtures: pointing(fixtures) },
  };
}

export type PointingScore = ReturnType<typeof pointing>;

/** The share of places that are at most `GROSS` pixels off, and the median distance, null where most answers name none; both null without places. */
function pointing(distances: readonly number[]) {
  const count = distances.length;
  if (count === 0) return { count, near: null, median: null };
  const median = distances.toSorted((a, b) => a - b)[Math.floor(count / 2)];
  const near = distances.filter((distance) => distance <= GROSS).length / count;
  return { count, near, median: Number.isFinite(median) ? median : null };
}
