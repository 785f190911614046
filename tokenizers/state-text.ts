export interface PromptParts {
  /** What to do; absent or blank where the data have no language. */
  readonly instruction?: string | null;
  /** Binned state, as `digitizeState` gives it; absent where the system has no state in its text. */
  readonly state?: ArrayLike<number> | null;
  /** The cleaning of pi0-FAST lowers the case, that of pi0 and pi0.5 keeps it (the default). */
  readonly lowerCase?: boolean;
}

/** An instruction as openpi cleans it (tokenizer.py): the ends are trimmed, then each `_` and line feed becomes a space. */
export function cleanInstruction(instruction: string, { lowerCase = false } = {}): string {
  const text = instruction.trim().replace(/[_\n]/g, ' ');
  return lowerCase ? text.toLowerCase() : text;
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
