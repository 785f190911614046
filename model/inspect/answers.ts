/** Answers of a model to questions about pictures, compared with the right ones. */
import type { Image } from '../data/dataset.ts';
import type { Encoding } from '../policy/encoding.ts';
import type { Policy } from '../policy/policy.ts';
import type { Pack, PackedQuestion } from '../training/packs.ts';

export interface AskedQuestion extends PackedQuestion {
  readonly image: () => Promise<Image>;
}

/** A question with its right answer, and a model's answer. */
export interface Answered {
  readonly question: Pick<PackedQuestion, 'kind' | 'answer'>;
  readonly answer: string;
}

export interface AnswerScore {
  readonly questions: number;
  /** The share of answers that are right to the letter; null without questions. */
  readonly answers: number | null;
  /** The share of the right answers' tokens, their ends included, that the model has at the same place. */
  readonly tokens: number | null;
}

/** Scores of a vision-language model's answers about pictures. */
export interface StartAnswers {
  /** Things to point at, and the share that is placed nearly right. */
  readonly objects: number;
  readonly near: number | null;
  /** Other questions, and the share of right tokens. */
  readonly others: number;
  readonly tokens: number | null;
}

/** Answers before and after a policy was trained from it, about the same scenes. */
export interface KeptAnswers {
  readonly scenes: number;
  readonly before: StartAnswers;
  readonly after: StartAnswers;
}

export interface AskOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (done: number, total: number) => void;
}

/** Questions that are asked at once. */
const BATCH = 64;

/** A model's answers, in the order of the questions. Throws the reason of an aborted `signal`. */
export async function answersTo(
  policy: Policy,
  questions: readonly AskedQuestion[],
  { signal, onProgress }: AskOptions = {},
): Promise<string[]> {
  const [camera] = policy.encoding.settings.cameras;
  const answers: string[] = [];
  // Questions of one kind have answers of like length, so that no short answer waits for a long one.
  const order = questions.map((_, i) => i).sort((a, b) => questions[a].kind.localeCompare(questions[b].kind));
  for (let start = 0; start < order.length; start += BATCH) {
    signal?.throwIfAborted();
    const asked = order.slice(start, start + BATCH);
    const observations = asked.map(async (i) => {
      const { image, state = null, prompt, request } = questions[i];
      return { images: { [camera]: await image() }, state, instruction: prompt, request };
    });
    const given = await policy.generateText(await Promise.all(observations));
    for (const [at, i] of asked.entries()) answers[i] = given[at];
    onProgress?.(Math.min(start + BATCH, order.length), order.length);
  }
  return answers;
}

/** All questions of packs, each with its picture. */
export const questionsOf = (packs: readonly Pack[]): AskedQuestion[] =>
  packs.flatMap(({ image, questions }) => questions.flatMap((own) => (own ? [{ ...own, image }] : [])));

export function answerScore(encoding: Encoding, answered: readonly Answered[]): AnswerScore {
  if (answered.length === 0) return { questions: 0, answers: null, tokens: null };
  let [right, tokens, rightTokens] = [0, 0, 0];
  for (const { question, answer } of answered) {
    const [own, other] = [question.answer, answer].map((text) => [
      ...encoding.answerTokens(text),
      encoding.endOfSequence,
    ]);
    right += question.answer === answer ? 1 : 0;
    tokens += own.length;
    rightTokens += own.filter((id, i) => other[i] === id).length;
  }
  return { questions: answered.length, answers: right / answered.length, tokens: rightTokens / tokens };
}

/** By kind of question, in the order of their first ones. */
export function scoresByKind(encoding: Encoding, answered: readonly Answered[]): Record<string, AnswerScore> {
  const kinds = new Set(answered.map(({ question }) => question.kind));
  const ofKind = (kind: string) => answered.filter(({ question }) => question.kind === kind);
  return Object.fromEntries(Array.from(kinds, (kind) => [kind, answerScore(encoding, ofKind(kind))]));
}
