import { type Column, tableFromIPC } from '@uwdata/flechette';
import { type ByteSource, readRange } from '../../../engine/files/bytes.ts';
import { InputError, quote, reasonOf } from '../../../engine/files/errors.ts';
import { assembleDataset, checkFinite, type FoundEpisode } from '../assemble.ts';
import type { Dataset } from '../dataset.ts';
import { ImageCache, type ImagePlace, imagesAt } from '../image-files.ts';
import { instructionsAmong } from '../parts.ts';
import { checkColumn, checkedStream } from './arrow-check.ts';

/** The largest Arrow file that is read; it is held in memory whole. */
const FILE_LIMIT = 2 ** 31;

/**
 * Reads a data set of LeRobot's version 1, one Arrow file with all steps: columns action, observation.state,
 * episode_index, timestamp and images. Cameras that exist only as video are left out, and the description says so. The
 * control rate comes from the timestamps.
 */
export async function readArrow(source: ByteSource, name: string): Promise<Dataset> {
  if (source.size > FILE_LIMIT) {
    throw new InputError(
      `${source.name}: ${source.size} bytes is too large for memory: convert it to LeRobot 2.1 or 3.0`,
    );
  }
  const bytes = await readRange(source, 0, source.size, 'the table');
  const columns = new Map<string, Column<unknown>>();
  try {
    const table = tableFromIPC(checkedStream(bytes), { useBigInt: true }); // otherwise it throws on large integers
    table.schema.fields.forEach((field, i) => {
      if (columns.has(field.name)) throw new Error(`two columns ${quote(field.name)}`);
      columns.set(field.name, table.getChildAt(i));
    });
  } catch (error) {
    throw new InputError(`${source.name}: damaged, cut off, or not an Arrow file (${reasonOf(error)})`);
  }
  return new ArrowReader(source.name, columns).dataset(name);
}

class ArrowReader {
  readonly #images = new ImageCache();
  readonly #checked = new Set<string>();

  constructor(
    private readonly file: string,
    private readonly columns: ReadonlyMap<string, Column<unknown>>,
  ) {}

  dataset(name: string): Dataset {
    const action = this.#table('action', 'actions');
    if (!action) {
      throw new InputError(`${this.file}: no column "action"; there are ${[...this.columns.keys()].join(', ')}`);
    }
    const { values: actions, width } = action;
    const rows = actions.length / width;
    const state = this.#table('observation.state', 'state');
    const owners = this.#numbers('episode_index', rows);
    const times = this.#numbers('timestamp', rows);
    const { pictures, videos } = this.#cameras();
    const found: FoundEpisode[] = [];
    let rate = 0;
    for (let from = 0; from < rows; ) {
      let to = from + 1;
      while (to < rows && owners[to] === owners[from]) to += 1;
      const own = this.#rate(times, from, to);
      if (rate !== 0 && own !== 0 && own !== rate) {
        throw new InputError(`${this.file}: column "timestamp": episode ${owners[from]} has ${own} Hz, others ${rate}`);
      }
      rate ||= own;
      const id = `episode_${String(owners[from]).padStart(6, '0')}`;
      const slice = (values: Float32Array, dimension: number) => values.subarray(from * dimension, to * dimension);
      checkFinite(slice(actions, width), width, this.file, `episode ${id}: column "action"`);
      if (state) checkFinite(slice(state.values, state.width), state.width, this.file, `episode ${id}: state`);
      const start = from;
      const length = to - from;
      found.push({
        file: this.file,
        actionDimension: width,
        stateDimension: state?.width ?? 0,
        episode: {
          id,
          length,
          actions: slice(actions, width),
          states: state && slice(state.values, state.width),
          instructions: this.#instructions(from),
          cameras: [...pictures.keys()],
          ...imagesAt(this.#images, length, (camera, step) => {
            const column = pictures.get(camera);
            return column ? this.#image(column, camera, start + step) : null;
          }),
        },
      });
      from = to;
    }
    if (rate === 0) throw new InputError(`${this.file}: column "timestamp" does not say the control rate`);
    const left = videos.length > 0 ? ` (${videos.join(', ')} left out: video is not read from Arrow files)` : '';
    return assembleDataset(found, { name, rate, kind: `Arrow file of LeRobot 1${left}`, place: this.file });
  }

  #column(name: string): Column<unknown> | undefined {
    const column = this.columns.get(name);
    try {
      if (column && !this.#checked.has(name)) checkColumn(column);
    } catch (error) {
      throw new InputError(`${this.file}: column ${quote(name)} is damaged (${reasonOf(error)})`);
    }
    this.#checked.add(name);
    return column;
  }

  #table(...names: string[]): { values: Float32Array; width: number } | null {
    const name = names.find((own) => this.columns.has(own));
    if (name === undefined) return null;
    const column = this.#column(name)!;
    const width = (column.at(0) as ArrayLike<number> | null)?.length ?? 1;
    const fail = (row: number) =>
      new InputError(`${this.file}: column ${quote(name)} does not hold ${width} numbers in row ${row}`);
    if (!(width >= 1 && width <= 4096)) throw fail(0);
    const listAt = (row: number) => {
      const own = column.at(row);
      const list = typeof own === 'object' ? (own as ArrayLike<number | bigint> | null) : [own as number | bigint];
      if (list?.length !== width) throw fail(row);
      return list;
    };
    for (let row = 0; row < column.length; row++) listAt(row); // equal lengths bound the allocation below by the size of the file
    const values = new Float32Array(column.length * width);
    for (let row = 0; row < column.length; row++) {
      const list = listAt(row);
      for (let i = 0; i < width; i++) values[row * width + i] = Number(list[i]);
    }
    return { values, width };
  }

  #numbers(name: string, rows: number): Float64Array {
    const column = this.#column(name);
    if (!column)
      throw new InputError(`${this.file}: no column ${quote(name)}; there are ${[...this.columns.keys()].join(', ')}`);
    if (column.length !== rows)
      throw new InputError(`${this.file}: column ${quote(name)} has ${column.length} of ${rows} rows`);
    return Float64Array.from({ length: rows }, (_, row) => Number(column.at(row)));
  }

  /** Computes the rate in Hz from an episode's times, rounded if it is nearly whole; 0 for a single step. */
  #rate(times: Float64Array, from: number, to: number): number {
    if (to - from < 2) return 0;
    const exact = (to - from - 1) / (times[to - 1] - times[from]);
    if (!(exact > 0 && Number.isFinite(exact))) {
      throw new InputError(`${this.file}: column "timestamp" does not go forward in rows ${from} to ${to - 1}`);
    }
    return Math.abs(exact - Math.round(exact)) < 0.01 * exact ? Math.round(exact) : Math.round(exact * 100) / 100;
  }

  #instructions(row: number): string[] {
    const text = this.#column('language_instruction')?.at(row);
    return typeof text === 'string' ? instructionsAmong([text]) : [];
  }

  #cameras() {
    const pictures = new Map<string, Column<unknown>>();
    const videos: string[] = [];
    for (const key of this.columns.keys()) {
      const name = /^observation\.(?:images?\.)?(.+)$/.exec(key)?.[1];
      if (!name) continue;
      const column = this.#column(key)!;
      const cell = column.at(0) as Record<string, unknown> | null;
      if (cell === null || typeof cell !== 'object') continue;
      if (cell.bytes instanceof Uint8Array) pictures.set(name, column);
      else if ('path' in cell && 'timestamp' in cell) videos.push(name);
    }
    return { pictures, videos };
  }

  #image(column: Column<unknown>, camera: string, row: number): ImagePlace {
    const what = `the image of camera "${camera}" in row ${row}`;
    const read = async () => {
      const cell = column.at(row) as { bytes?: unknown } | null;
      if (!(cell?.bytes instanceof Uint8Array)) throw new InputError(`${this.file}: ${what} is missing`);
      return { bytes: new Uint8Array(cell.bytes), file: this.file };
    };
    return { key: `${camera}:${row}`, what, read };
  }
}
