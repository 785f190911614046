import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { encode as encodePng } from 'fast-png';
import { expect, test } from 'vitest';
import { DatasetMixture, TrainingSampler, wholeEpisodes } from '../../model/data/index.ts';
import { imageQuestions } from '../../model/training/image-questions.ts';
import { namedQuestions, openNamedImages } from '../../model/training/named-images.ts';
import { datasetOf, type Files, folderOf, gradientImage, message, text } from '../data/synthetic.ts';

function files(change: Record<string, unknown> = {}): Files {
  const png = encodePng({ width: 4, height: 4, data: gradientImage(4, 4).pixels, channels: 3, depth: 8 });
  const items = ['cat', 'dog', 'cup'].map((name, i) => [
    i * png.length,
    png.length,
    name,
    i < 2 ? 'animals' : 'things',
  ]);
  const list = { mime: 'image/png', columns: ['offset', 'length', 'name', 'category'], items, ...change };
  return new Map([
    ['e.json', text(list)],
    ['e.pack', Uint8Array.from([...png, ...png, ...png])],
  ]);
}

test('questions about named images: all in every epoch, by seed, answers that fit', async () => {
  const images = await openNamedImages(folderOf(files()), 'e');
  expect(await images[2].image()).toEqual(gradientImage(4, 4));
  const source = imageQuestions(namedQuestions(images), 4);
  expect(source.size).toBe(9);
  const all = Array.from({ length: 270 }, (_, place) => source.at(place));
  for (let epoch = 0; epoch < 30; epoch++) {
    const own = all.slice(9 * epoch, 9 * epoch + 9);
    expect(
      own
        .filter(({ prompt }) => prompt === 'caption en')
        .map(({ answer }) => answer)
        .sort(),
    ).toEqual(['cat', 'cup', 'dog']);
    expect(own.filter(({ answer }) => answer === 'animals').length).toBe(2);
  }
  for (const { image, prompt, answer } of all.filter(({ prompt }) => prompt.startsWith('answer en is'))) {
    const shown = images.find((own) => own.image === image)!.name;
    expect(answer).toBe(prompt === `answer en is this ${shown}?` ? 'yes' : 'no');
  }
  const yes = all.filter(({ answer }) => answer === 'yes').length;
  expect(Math.abs(yes - 45)).toBeLessThan(15);
  expect(imageQuestions(namedQuestions(images), 4).at(137)).toEqual(all[137]);
  expect(Array.from({ length: 9 }, (_, i) => imageQuestions(namedQuestions(images), 5).at(i))).not.toEqual(
    all.slice(0, 9),
  );
});

test('half of a batch robots, half questions', async () => {
  const images = await openNamedImages(folderOf(files()), 'e');
  const robots = new TrainingSampler(wholeEpisodes(datasetOf([9, 9]).episodes), 1);
  const mixture = new DatasetMixture<object>(
    [
      { share: 1, members: [{ name: 'robots', source: robots }] },
      { share: 1, members: [{ name: 'images', source: imageQuestions(namedQuestions(images), 1) }] },
    ],
    1,
  );
  const names = mixture.batch(3, 8).map(({ name, example }) => [name, 'prompt' in example]);
  expect(names).toEqual([...Array(4).fill(['robots', false]), ...Array(4).fill(['images', true])]);
});

test('wrong lists are refused', async () => {
  const open = (change: Record<string, unknown>) => message(openNamedImages(folderOf(files(change)), 'e'));
  expect(await open({ mime: 'image/gif' })).toContain(
    'folder/e.json: "mime": expected one of image/jpeg, image/png, image/webp, got "image/gif"',
  );
  expect(await open({ columns: ['name'] })).toContain('folder/e.json: "columns": expected a list with name, category');
  expect(await open({ items: [[0, 1e9, 'cat', 'animals']] })).toContain('item 0 is no named image of folder/e.pack');
  expect(await open({ items: [[0, 1, 3, 'animals']] })).toContain('item 0 is no named image');
});

const shared = join(import.meta.dirname, '../../../shared/data');
const there = existsSync(shared);
test.skipIf(!there)(`emoji${there ? '' : ' (skipped: ../shared is not there)'}`, async () => {
  const images = await openNamedImages(shared, 'images/emoji');
  expect([images.length, images[0].name, images[0].category]).toEqual([1081, 'monkey face', 'Animals & Nature']);
  expect((await images[1000].image()).width).toBe(32);
});
