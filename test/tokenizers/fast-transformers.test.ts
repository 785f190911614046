/** Python's side of an exported FAST tokenizer: INSULA_PYTHON names a Python with transformers and scipy. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { writePublished } from '../../model/policy/tokenizer-file.ts';
import { FastTokenizer } from '../../tokenizers/index.ts';
import { normals } from '../support/numbers.ts';

const python = process.env.INSULA_PYTHON;
const skipped = python ? '' : ' (skipped: INSULA_PYTHON names no Python with transformers and scipy)';

const program = `
import json, sys
from transformers import AutoProcessor
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
chunks = json.load(open(sys.argv[2]))
ids = processor(chunks)
decoded = processor.decode(ids, time_horizon=len(chunks[0]), action_dim=len(chunks[0][0]))
print(json.dumps({"ids": ids, "decoded": decoded.tolist()}))
`;

it.skipIf(!python)(
  `AutoProcessor of transformers encodes and decodes as the tokenizer does${skipped}`,
  async () => {
    const [horizon, dimension] = [20, 6];
    const chunks = Array.from({ length: 30 }, (_, seed) => {
      const noise = normals(horizon * dimension, seed, 0.05);
      // the last ones reach beyond the alphabet
      const size = seed < 20 ? 1 : seed < 25 ? 4 : 100;
      return {
        ...{ horizon, dimension },
        data: noise.map((value, i) => size * Math.fround(value + Math.sin(seed + i / dimension / 4 + (i % dimension)))),
      };
    });
    const tokenizer = FastTokenizer.fit(chunks.slice(0, 20), { format: 'published', vocabularySize: 512 });
    const folder = await mkdtemp(join(tmpdir(), 'insula-fast-'));
    try {
      await writePublished(join(folder, 'fast'), tokenizer);
      const rows = chunks.map(({ data }) =>
        Array.from({ length: horizon }, (_, i) => Array.from(data.subarray(i * dimension, (i + 1) * dimension))),
      );
      await writeFile(join(folder, 'chunks.json'), JSON.stringify(rows));
      const output = execFileSync(python!, ['-c', program, join(folder, 'fast'), join(folder, 'chunks.json')], {
        env: { ...process.env, HF_HUB_OFFLINE: '1', HF_HOME: folder },
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      const { ids, decoded } = JSON.parse(output.toString()) as { ids: number[][]; decoded: number[][][] };
      chunks.forEach((chunk, i) => {
        expect(ids[i]).toEqual(Array.from(tokenizer.encode(chunk)));
        const own = tokenizer.decode(ids[i], chunk);
        decoded[i].flat().forEach((value, j) => {
          expect(value).toBeCloseTo(own[j], 6);
        });
      });
      expect(tokenizer.clamping(chunks[29]).clamped).toBeGreaterThan(0);
    } finally {
      await rm(folder, { recursive: true });
    }
  },
  120_000,
);
