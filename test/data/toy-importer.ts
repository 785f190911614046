import { InputError } from '../../engine/files/errors.ts';
import type { Importer, Source, SourceField, SourcePictures } from '../../model/data/import/source.ts';
import { readJsonObject } from '../../model/data/json.ts';
import { type Files, gradientImage } from './synthetic.ts';

/** An importer of a format for tests, which counts what it reads, and can stop in the middle. */
export function toyImporter(version = 1): Importer & {
  read: number[];
  opened: number;
  failAt?: number;
  hangAt?: number;
  onHang?(): void;
} {
  const toy = {
    format: 'toy',
    version,
    read: [] as number[],
    opened: 0,
    failAt: undefined as number | undefined,
    hangAt: undefined as number | undefined,
    onHang: () => {},
    recognises: async () => true,
    async open(...[folder, { note }]: Parameters<Importer['open']>): Promise<Source> {
      toy.opened += 1;
      const names = (await folder.list()).filter((name) => name.startsWith('ep'));
      // biome-ignore lint/suspicious/noExplicitAny: the test's own files
      const parse = async (path: string): Promise<any> => readJsonObject(await folder.open(path));
      const { rate, fields } = await parse('set.json');
      async function* episodes(first: number): ReturnType<Source['episodes']> {
        for (let e = first; e < names.length; e++) {
          if (e === toy.failAt) throw new Error('pulled the plug');
          if (e === toy.hangAt) {
            toy.onHang();
            await new Promise((resolve) => setTimeout(resolve, 1e6));
          }
          toy.read.push(e);
          const own = await parse(names[e]);
          const numbers = (name: string) =>
            Float64Array.from(own.numbers[name], (value: number | null) => value ?? Number.NaN);
          yield {
            ...{ id: own.id, length: own.length, where: names[e] },
            numbers: async (name) => numbers(name),
            texts: async (name) => own.texts[name],
            async pictures(name): Promise<SourcePictures | null> {
              if (own.top === null) throw new InputError(`${names[e]}: no pictures here`);
              await (await folder.open('pictures.bin')).close();
              const sizes = Float64Array.from(own.top);
              const place = { episode: e };
              if (name.endsWith('wrist')) return { kind: 'pick', place, count: own.length };
              if (name.endsWith('film')) return { kind: 'unpack', place, count: own.length };
              if (name.endsWith('side')) return { kind: 'files', paths: ['side.png'], steps: Uint32Array.of(0) };
              return { kind: 'ranges', file: 'pictures.bin', starts: sizes.map((size) => size * 0 + 5), ends: sizes };
            },
          };
        }
      }
      return {
        ...{ kind: 'toy set', rate, fields, count: names.length, episodes },
        async picture() {
          const file = await folder.open('side.png');
          return file.read(0, file.size).finally(() => file.close());
        },
        async *unpack({ episode }) {
          note?.(`film ${episode} lacks a frame`);
          for (let i = 0; i < 4; i++) yield gradientImage(4, 3);
        },
      };
    },
  };
  return toy;
}

interface ToySet {
  readonly episodes: number;
  /** Without it the set has no pictures. */
  readonly png?: Uint8Array;
  readonly times?: readonly (readonly number[])[];
  readonly stated?: boolean;
  readonly cameras?: readonly string[];
  /** The first action. */
  readonly first?: number;
}

const DEFAULT_CAMERAS = ['top', 'side', 'wrist', 'film'].map((name) => `observation.images.${name}`);

/** Files of episodes of four steps; action = [episode, step], state = [episode, step, 0.5]. */
export function toySet({ episodes, png, times, stated = true, cameras = DEFAULT_CAMERAS, first = 0 }: ToySet): Files {
  const numbers = (name: string, width: number, use: SourceField['use'], reason?: string): SourceField => ({
    ...{ name, kind: 'numbers', shape: [width], use, reason },
    ...(name === 'action' && { names: ['x', 'y'] }),
  });
  const fields: SourceField[] = [
    numbers('action', 2, 'action'),
    numbers('state', 3, 'state'),
    numbers('extra', 1, null, 'not asked for'),
    numbers('nothing', 0, null, 'it is empty'),
    numbers('seconds', 1, 'time'),
    { name: 'words', kind: 'texts', use: 'language' },
    { name: 'more', kind: 'texts', use: 'language' },
    { name: 'subtask', kind: 'texts', use: 'subtask' },
    ...cameras.map((name): SourceField => ({ name, kind: 'pictures', shape: [3, 4, 3], use: 'camera' })),
    { name: 'depth', kind: 'depth', use: null, reason: 'depth is no colour' },
  ];
  const steps = [0, 1, 2, 3];
  const set = { rate: stated ? { stated: 10 } : { usual: 10 }, fields };
  const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  const files: Files = new Map([['set.json', json(set)]]);
  for (let e = 0; e < episodes; e++) {
    files.set(
      `ep${e}.json`,
      json({
        ...{ id: `ep${e}`, length: 4, top: png ? steps.map(() => 5 + png.length) : null },
        numbers: {
          action: steps.flatMap((step) => [first + e, step]),
          state: steps.flatMap((step) => [e, step, 0.5]),
          extra: steps.map((step) => 100 + step),
          seconds: times?.[e] ?? steps.map((step) => step / 10),
        },
        texts: {
          words: steps.map((step) => [step < 2 ? 'go' : 'stop']),
          more: [['always']],
          subtask: steps.map((step) => (step < 1 ? [] : ['reach'])),
        },
      }),
    );
  }
  if (!png) return files;
  const padded = new Uint8Array(5 + png.length);
  padded.set(png, 5);
  return files.set('pictures.bin', padded).set('side.png', png);
}
