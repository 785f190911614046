import { BinActionTokenizer, FastTokenizer, StrideTokenizer, StringActionTokenizer } from '../../tokenizers/index.ts';
import { describeGrammar, waves } from '../support/grammar.ts';

const gripper = { dimensions: [2], zero: 0, one: 1 };
describeGrammar('string', () => new StringActionTokenizer());
describeGrammar('string with gripper', () => new StringActionTokenizer({ decimals: 2, gripper }));
describeGrammar('bins', () => new BinActionTokenizer({ bins: 16 }));
describeGrammar('stride', () => new StrideTokenizer(new BinActionTokenizer(), 3));
describeGrammar('FAST', () => FastTokenizer.fit(waves, { vocabularySize: 200 }));
describeGrammar('published FAST', () => FastTokenizer.fit(waves, { vocabularySize: 200, format: 'published' }));
