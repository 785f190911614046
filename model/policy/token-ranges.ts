/** Where places, state bins and actions lie in the vocabulary of a policy, and the text that it says around its actions. */
import { InputError } from '../../engine/files/errors.ts';
import {
  type ActionIds,
  actionIdsFromEnd,
  LOCATIONS,
  publicMappings,
  rangesAfterText,
  type TextTokenizer,
} from '../../tokenizers/index.ts';

export type TokenRanges = Readonly<Partial<Record<'location' | 'state' | 'action', ActionIds>>>;

/**
 * The prompt of a published policy: pi0's is the instruction and a line feed; in the others a number below the first bin is -1. That of
 * pi0-FAST, in lower case by openpi, ends before `Action: `, which is said with the actions; LeRobot puts another begin of sequence
 * behind it when it acts, here in training too.
 */
export const publishedPrompts = ['pi0', 'pi05', 'pi0-fast', 'pi0-fast-lerobot'] as const;

interface Settings {
  readonly prompt?: (typeof publishedPrompts)[number];
  readonly locations?: boolean;
  readonly stateTokens?: boolean;
  readonly stateBins: number;
}

/** Whether a policy has the prompt of a published pi0-FAST. */
export const isPi0Fast = ({ prompt }: Pick<Settings, 'prompt'>): boolean =>
  prompt === 'pi0-fast' || prompt === 'pi0-fast-lerobot';

/** The ids that a policy says before and behind its action tokens; a published pi0-FAST ends its actions by the second. */
export const aroundActions = (settings: Settings, text: TextTokenizer) => {
  const [before, behind] = isPi0Fast(settings) ? ['Action: ', '|'] : ['', ''];
  return { before: Array.from(text.encode(before)), behind: Array.from(text.encode(behind)) };
};

/**
 * All follow the text, but for the actions of a published pi0-FAST, which take the place of ids of the text.
 *
 * @throws InputError if the text has too few
 */
export function tokenRanges(settings: Settings, text: TextTokenizer, actionCount: number): TokenRanges {
  const { locations, stateTokens, stateBins } = settings;
  const sizes: Record<string, number> = {};
  if (locations) sizes.location = LOCATIONS;
  if (stateTokens) sizes.state = stateBins;
  if (actionCount > 0 && !isPi0Fast(settings)) sizes.action = actionCount;
  const ranges: TokenRanges = rangesAfterText(text.vocabularySize, sizes);
  if (actionCount === 0 || !isPi0Fast(settings)) return ranges;
  const [{ skip }, { vocabularySize }] = [publicMappings.openpi, text];
  if (actionCount + skip > vocabularySize)
    throw new InputError(
      `a text tokenizer of ${vocabularySize} ids has no place for ${actionCount} action tokens before its last ${skip}: name PaliGemma's`,
    );
  return { ...ranges, action: actionIdsFromEnd({ vocabularySize, size: actionCount, skip }) };
}
