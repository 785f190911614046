// Patches of images as rows: what a vision transformer's first convolution sees.       Dosovitskiy et al. 2020, arXiv 2010.11929
//
//   patches[n, token, (c P + i) P + j] = images[n, row P + i, column P + j, c],      token = row columns + column
//
// so that the patch embedding is patches weight^T + bias + position, weight [out, 3, P, P] read as [out, 3 P P]. The map is one to
// one, and backward is its inverse:  dImages[n, y, x, c] = dPatches[n, token, (c P + i) P + j].
//
// Shapes: images, dImages [N, H, W, 3]; patches, dPatches [N, rows columns, 3 P P]; P, the patch's side, divides H and W. f32.

const THREADS: u32 = 64u;                                                    // @param  a power of two
const CHANNELS: u32 = 3u;

struct Shape { rows: u32, height: u32, width: u32, side: u32 }
struct Grid { @builtin(workgroup_id) workgroup: vec3u, @builtin(num_workgroups) count: vec3u }

@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read> images: array<f32>;
@group(0) @binding(2) var<storage, read_write> patches: array<f32>;
@group(0) @binding(3) var<storage, read> dPatches: array<f32>;
@group(0) @binding(4) var<storage, read_write> dImages: array<f32>;

fn position(grid: Grid, thread: u32) -> u32 { return (grid.workgroup.y * grid.count.x + grid.workgroup.x) * THREADS + thread; }

// The first pixel, of its channel, in the images of a row of a patch: row = (token 3 + c) P + i, tokens counted over all images.
fn startInImages(row: u32) -> u32 {
  let token = row / (CHANNELS * shape.side);
  let columns = shape.width / shape.side;
  let tokens = columns * (shape.height / shape.side);
  let y = token % tokens / columns * shape.side + row % shape.side;
  let x = token % columns * shape.side;
  return ((token / tokens * shape.height + y) * shape.width + x) * CHANNELS + row / shape.side % CHANNELS;
}

// ---- one thread a row of a patch, `side` elements ----------------------------------------------------------------------

@compute @workgroup_size(THREADS) fn forward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = position(grid, thread);
  if (row >= shape.rows) { return; }
  let start = startInImages(row);
  for (var j = 0u; j < shape.side; j++) { patches[row * shape.side + j] = images[start + j * CHANNELS]; }
}

@compute @workgroup_size(THREADS) fn backward(grid: Grid, @builtin(local_invocation_index) thread: u32) {
  let row = position(grid, thread);
  if (row >= shape.rows) { return; }
  let start = startInImages(row);
  for (var j = 0u; j < shape.side; j++) { dImages[start + j * CHANNELS] = dPatches[row * shape.side + j]; }
}
