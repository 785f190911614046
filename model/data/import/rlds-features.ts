import { quote } from '../../../engine/files/errors.ts';
import { readJsonObject } from '../json.ts';
import type { ListedFolder } from './source.ts';

/** What features.json says of a feature: `image`, `text`, `tensor` and so on. */
export interface Description {
  readonly type?: string;
  readonly dtype?: string;
  readonly shape?: readonly number[];
}

/** The fields of a JSON object; none of anything else. */
const inner = (value: unknown): Readonly<Record<string, unknown>> => ({ ...(value as object) });

/** Reads features.json, if it is there: the descriptions by the names that features have in records. */
export async function readDescription(folder: ListedFolder): Promise<Map<string, Description>> {
  const described = new Map<string, Description>();
  if (!(await folder.list()).includes('features.json')) return described;
  const describe = (value: unknown, path: string, depth = 0) => {
    const { featuresDict, sequence, description: _, ...node } = inner(value);
    if (depth > 64) return;
    for (const [key, own] of Object.entries(inner(inner(featuresDict).features)))
      describe(own, path === '' ? key : `${path}/${key}`, depth + 1);
    if (path === 'steps') describe(inner(sequence).feature, path, depth + 1);
    const [type] = Object.keys(node).filter((key) => typeof node[key] === 'object');
    if (featuresDict || sequence || type === undefined) return;
    const { dtype, shape } = inner(node[type]);
    const sizes = shape === undefined ? null : (inner(shape).dimensions ?? []);
    const known = Array.isArray(sizes) && sizes.every((size) => /^"?[1-9]\d*"?$/.test(quote(size)));
    described.set(path, {
      type,
      ...(typeof dtype === 'string' && { dtype }),
      ...(known && { shape: sizes.map(Number) }),
    });
  };
  describe(await readJsonObject(await folder.open('features.json')), '');
  return described;
}
