/** Opens and closes devices one after the other, as many as its argument says, then in ways that have crashed; says what each cost. */
import { readdirSync, readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Device, type DeviceOptions, openDevice, tensor } from '../../engine/index.ts';
import { scale } from '../../kernels/index.ts';

export interface ManyDevices {
  /** Threads and resident bytes of the process when half of the devices had been used and closed, and after the last. */
  readonly threads: readonly [number, number];
  readonly bytes: readonly [number, number];
  /** What each device of the other ways computed. */
  readonly results: readonly number[];
}

const threads = (): number => readdirSync('/proc/self/task').length;
const bytes = (): number => 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]);

async function use(device: Device): Promise<number> {
  const x = tensor(device, [1, 2, 3, 4], [4]);
  using y = device.step(() => scale(x, 2));
  return (await y.read()).reduce((sum, value) => sum + value);
}

async function openUseClose(options: DeviceOptions = {}): Promise<number> {
  using device = await openDevice(options);
  return await use(device);
}

/** Nothing holds the device any more, which is never closed. */
async function forget(): Promise<number> {
  return await use(await openDevice());
}

async function manyDevices(count: number): Promise<ManyDevices> {
  const half = async () => {
    for (let opened = 0; opened < count / 2; opened++) await openUseClose();
    return [threads(), bytes()] as const;
  };
  const before = await half();
  const after = await half();

  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const results: number[] = [];
  for (let round = 0; round < 10; round++) {
    results.push(
      ...(await Promise.all([openUseClose(), openUseClose({ floor: true }), openUseClose({ debug: true })])),
    );
    await openUseClose({ adapter: 'null' });
    const closing = await openDevice();
    const unfinished = use(closing).catch((error: Error) => error);
    const opening = openDevice();
    closing.close();
    collect(); // while what was read of it is pending
    await unfinished;
    using device = await opening;
    collect();
    results.push(await use(device), await forget());
  }
  return { threads: [before[0], after[0]], bytes: [before[1], after[1]], results };
}

console.log(JSON.stringify(await manyDevices(Number(process.argv[2]))));
