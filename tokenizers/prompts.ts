import type { TextTokenizer } from './text.ts';

export interface PromptParts {
  /** The instruction; absent or blank if the data have no language. */
  readonly instruction?: string | null;
  /** The binned state of `digitizeState`; absent if the system has no state in its prompt. */
  readonly state?: ArrayLike<number> | null;
  /** Lower case, as in pi0-FAST; pi0 and pi0.5 keep the case (the default). */
  readonly lowerCase?: boolean;
}

/** Cleans an instruction like openpi (tokenizer.py): trims it; `_`, and for pi0 and pi0.5 line feeds, become spaces. */
export function cleanInstruction(instruction: string, { lowerCase = false } = {}): string {
  const text = instruction.trim();
  return lowerCase ? text.toLowerCase().replaceAll('_', ' ') : text.replace(/[_\n]/g, ' ');
}

/**
 * The prompt of pi0.5 and knowledge insulation (openpi tokenizer.py; arXiv 2505.23705, appendix C):
 * `Task: {instruction}, State: {b1 b2 ...};\nAction: `. A missing part is left out with its name:
 * `Task: {instruction};\nAction: `, `State: {b1 b2 ...};\nAction: `, `Action: `.
 */
export function promptText({ instruction, state, lowerCase }: PromptParts): string {
  const parts: string[] = [];
  const task = cleanInstruction(instruction ?? '', { lowerCase });
  if (task !== '') parts.push(`Task: ${task}`);
  if (state && state.length > 0) parts.push(`State: ${Array.from(state).join(' ')}`);
  return `${parts.length > 0 ? `${parts.join(', ')};\n` : ''}Action: `;
}

/** A special id of the text tokenizer. */
export type Mark = { readonly special: 'bos' | 'eos' };

/** The pieces before and after the action tokens, or those that the action expert reads. Each piece is encoded by itself. */
export interface Prompt {
  readonly before: readonly (string | Mark)[];
  readonly behind: readonly (string | Mark)[];
}

export interface PromptValues extends PromptParts {
  /** Control steps in a chunk, for RoboVLMs' discrete actions. Default 1. */
  readonly steps?: number;
}

const bos: Mark = { special: 'bos' };
const eos: Mark = { special: 'eos' };
const lower = (instruction?: string | null) => (instruction ?? '').toLowerCase();
const trimmed = (instruction?: string | null) => (instruction ?? '').trim();
const prompt = (before: Prompt['before'], behind: Prompt['behind'] = []): Prompt => ({ before, behind });
const pi0 = ({ instruction }: PromptValues) => prompt([bos, cleanInstruction(instruction ?? ''), '\n']);
const openVla = ({ instruction, steps = 1 }: PromptValues): Prompt => {
  const action = steps > 1 ? `${steps} step actions` : 'action';
  return prompt([bos, `In: What ${action} should the robot take to ${lower(instruction)}?\nOut: `], [eos]);
};

/**
 * The prompts of published systems, with their sources in brackets.
 *
 * Knowledge insulation and the systems that its paper trains in the same form (joint training, naive tokens, HybridVLA,
 * Transfusion, OpenVLA-OFT) use the prompt of pi05, followed by the ids and an EOS. Pieces are separate if the source
 * encodes them separately.
 */
export const prompts = {
  /** [openpi tokenizer.py] The text has no state; the line feed starts the answer. pi0.5 without a state has this prompt too. */
  pi0,
  /** [openpi tokenizer.py] Lower case; the ids are between `Action: ` and `|`. */
  'pi0-fast': (values) => {
    const text = promptText({ ...values, lowerCase: true });
    return prompt([bos, text.slice(0, -'Action: '.length), 'Action: '], ['|', eos]);
  },
  /** [openpi tokenizer.py] */
  pi05: (values) => prompt([bos, promptText(values)]),
  /** [arXiv 2505.23705, appendix C] */
  'knowledge-insulation': (values) => prompt([bos, promptText(values)], [eos]),
  /** [arXiv 2307.15818, section 3.2] */
  'rt-2': ({ instruction }) =>
    prompt([bos, `Q: what action should the robot take to ${trimmed(instruction)}? A:`], [eos]),
  /** [openvla] Lower case; Llama encodes the space after `Out:` as its empty piece, 29871. GenVLA's OpenVLA rows use it too. */
  openvla: (values) => openVla({ ...values, steps: 1 }),
  /** [robovlms] Discrete actions; a chunk of one step has OpenVLA's prompt. */
  'robovlms-discrete': openVla,
  /** [robovlms] Continuous heads, by backbone. */
  'robovlms-kosmos': ({ instruction }) => prompt([`<grounding>An image of a robot ${trimmed(instruction)}`]),
  'robovlms-paligemma': ({ instruction }) => prompt([eos, trimmed(instruction), '\n']),
  'robovlms-flamingo': ({ instruction }) => prompt([`<image>${trimmed(instruction)}<|endofchunk|>`, eos]),
  /** PaliGemma and GenVLA's pi0+: prefix and line feed, then the answer (a caption, string actions) and EOS. */
  paligemma: (values) => prompt(pi0(values).before, [eos]),
} as const satisfies Record<string, (values: PromptValues) => Prompt>;

export type PromptName = keyof typeof prompts;

export function encodePieces(text: TextTokenizer, pieces: Prompt['before']): Int32Array {
  return Int32Array.from(
    pieces.flatMap((piece) =>
      typeof piece === 'string' ? Array.from(text.encode(piece)) : [text.special[piece.special]],
    ),
  );
}
