import { expect, test } from 'vitest';
import { randomStream } from '../../engine/random.ts';
import { encodePng } from '../../model/data/index.ts';
import { imageQuestions } from '../../model/training/image-questions.ts';
import { openQuestionFile } from '../../model/training/question-file.ts';
import { encodeJpeg, type Files, folderOf, gradientImage, message } from '../data/synthetic.ts';

const picture = gradientImage(4, 4);

async function open(lines: readonly unknown[], change: Files = new Map()) {
  const text = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n');
  const files = new Map([
    ['q.jsonl', new TextEncoder().encode(text)],
    ['pictures/1.png', encodePng(picture)],
    ['2.jpg', await encodeJpeg(gradientImage(8, 6))],
    ...change,
  ]);
  return openQuestionFile(folderOf(files), 'q.jsonl');
}

const point = { image: 'pictures/1.png', prompt: 'point to the cup', answer: '<loc0512><loc1023>', kind: 'point' };
const named = { image: '2.jpg', prompt: ' what is it? ', answer: 'a cup' };

test('a file of questions: lines of an image belong together, in their order', async () => {
  const images = await open([point, named, '', { ...point, image: './pictures//1.png', kind: 'again' }]);
  const questions = images.map((own) => own.questions(randomStream(1, 0, 0)));
  const { prompt, answer } = point;
  expect(questions).toEqual([
    [
      { kind: 'point', prompt, answer },
      { kind: 'again', prompt, answer },
    ],
    [{ kind: 'question', prompt: 'what is it?', answer: 'a cup' }],
  ]);
  expect(images.map(({ count }) => count)).toEqual([2, 1]);
  expect(await images[0].image()).toEqual(picture);
  expect(await images[1].image()).toMatchObject({ width: 8, height: 6 });
  const source = imageQuestions(images, 3);
  const epoch = (number: number) => [0, 1, 2].map((i) => source.at(3 * number + i).answer);
  expect(source.size).toBe(3);
  for (const number of [0, 1, 2]) expect(epoch(number).sort()).toEqual([answer, answer, 'a cup'].sort());
});

test.each<[unknown, string]>([
  ['nonsense', 'line 2 is not JSON, or cut off'],
  [[point], 'line 2: expected a JSON object'],
  [{ ...point, image: undefined }, 'line 2: "image": missing'],
  [{ ...point, prompt: undefined }, 'line 2: "prompt": missing'],
  [{ ...point, answer: 7 }, 'line 2: "answer": expected text, got 7'],
  [{ ...point, answer: ' ' }, 'line 2: "answer": expected text, got ""'],
  [{ ...point, kind: 7 }, 'line 2: "kind": expected text, got 7'],
  [
    { ...point, answer: '<loc0000><loc1024>' },
    'line 2: "answer": expected places from <loc0000> to <loc1023>, got "<loc0000><loc1024>"',
  ],
  [{ ...point, prompt: 'at <loc2000>' }, 'line 2: "prompt": expected places from <loc0000>'],
  [{ ...point, answer: '<loc512>' }, 'got "<loc512>"'],
  [{ ...point, answer: '<loc-001>' }, 'got "<loc-001>"'],
  [{ ...point, image: '9.png' }, 'line 2: the image "9.png": folder/9.png: cannot open it: no such file'],
])('a line that is no question is refused: %#', async (line, reason) => {
  const refused = await message(open([named, line]));
  expect(refused).toContain(reason);
  expect(refused).toMatch(/^folder\/q\.jsonl: /);
});

test('a damaged image is refused by the line that named it', async () => {
  const lines = [named, point];
  const cut = await open(lines, new Map([['pictures/1.png', encodePng(picture).subarray(0, 60)]]));
  expect(await message(cut[1].image())).toContain('q.jsonl: line 2: the image "pictures/1.png": damaged or cut-off');
  const other = await open(lines, new Map([['2.jpg', Uint8Array.of(1, 2, 3)]]));
  expect(await message(other[0].image())).toContain(
    'line 1: the image "2.jpg": no image file; JPEG, PNG and WebP are read',
  );
});
