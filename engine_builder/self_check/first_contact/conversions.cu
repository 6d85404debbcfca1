// The kernels of conversions.ptx, eight elements a thread, and one that does nothing. Written with
//   nvcc -ptx -arch=compute_75 conversions.cu -o - | sed 's/^\.version .*/.version 6.4/' | grep -v '^//'
// in the oldest language that every driver still takes (TensorRT itself wants a newer one).
#include <cuda_fp16.h>

struct alignas(16) Halves { __half v[8]; };
struct alignas(8) Bytes { signed char v[8]; };

extern "C" __global__ void nothing() {}

extern "C" __global__ void quantize(const Halves *from, Bytes *to, unsigned count, float inverse) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    Halves in = from[i];
    Bytes out;
#pragma unroll
    for (int k = 0; k < 8; k++) out.v[k] = (signed char)max(-128, min(127, __float2int_rn(__half2float(in.v[k]) * inverse)));
    to[i] = out;
}

extern "C" __global__ void dequantize(const Bytes *from, Halves *to, unsigned count, float scale) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    Bytes in = from[i];
    Halves out;
#pragma unroll
    for (int k = 0; k < 8; k++) out.v[k] = __float2half_rn(in.v[k] * scale);
    to[i] = out;
}
