import type { ActionChunk, BinActionTokenizer, StringActionTokenizer } from '../../../tokenizers/index.ts';
import { Figure } from '../parts.tsx';
import { ChunkMatrix } from './chunk-matrix.tsx';
import { shape } from './chunks.ts';

/** The naive tokenizer: an id for each number. */
export function BinTokens({ tokenizer, chunk }: { tokenizer: BinActionTokenizer; chunk: ActionChunk }) {
  const ids = tokenizer.encode(chunk);
  const decoded = tokenizer.decode(ids, shape);
  return (
    <Figure
      title="Bins, for comparison"
      unit="ids, by control step"
      see="Every number has the id of its bin, whatever its neighbours are: a smooth chunk costs as much as a wild one."
    >
      <ChunkMatrix
        label="Bins"
        along="step"
        cell={(index) => ({
          text: ids[index],
          shade: 0.8 * decoded[index],
          title: `bin ${ids[index]} means ${decoded[index].toFixed(4)}`,
        })}
      />
    </Figure>
  );
}

/** Decimal text, an id for each character. */
export function StringTokens({ tokenizer, chunk }: { tokenizer: StringActionTokenizer; chunk: ActionChunk }) {
  const text = tokenizer.format(chunk);
  return (
    <Figure
      title="Decimal text, for comparison"
      unit={`${text.length} characters, each a token`}
      see="The chunk as a language model would write it: steps between semicolons, dimensions between spaces."
    >
      <code>{text}</code>
    </Figure>
  );
}
