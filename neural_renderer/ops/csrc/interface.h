// The C functions that Python calls, the same for CPU and CUDA. The file that includes this one
// defines the templates, and run(place, stream, call): `place` counts threads or names a device.
// Arrays are contiguous. Every integer is an int64_t, so that Python needs to know no prototypes.

#define NR_INTERFACE(T, name)                                                                      \
extern "C" const char* nr_rasterize_##name(                                                        \
    const T* faces, int64_t batch, int64_t count, int64_t size, int64_t perspective, double near,  \
    double far, int32_t* index, T* weight, T* depth, int64_t place, void* stream) {                \
    const nr::View view = {int(size), int(perspective), near, far};                                \
    return run(int(place), stream, [&](auto where) {                                               \
        rasterize(faces, batch, count, view, index, weight, depth, where);                         \
    });                                                                                            \
}                                                                                                  \
extern "C" const char* nr_depth_backward_##name(                                                   \
    const T* faces, const int32_t* index, const T* grad_depth, int64_t batch, int64_t count,       \
    int64_t size, int64_t perspective, double* grad_faces, int64_t place, void* stream) {          \
    const nr::View view = {int(size), int(perspective), 0, 0};                                     \
    return run(int(place), stream, [&](auto where) {                                               \
        depth_backward(faces, index, grad_depth, batch, count, view, grad_faces, where);           \
    });                                                                                            \
}                                                                                                  \
extern "C" const char* nr_sample_##name(                                                           \
    const T* textures, const int32_t* index, const T* weight, const T* background, int64_t batch,  \
    int64_t count, int64_t pixels, int64_t cube, T* rgb, int64_t place, void* stream) {            \
    return run(int(place), stream, [&](auto where) {                                               \
        sample(textures, index, weight, background, batch, count, pixels, int(cube), rgb, where);  \
    });                                                                                            \
}                                                                                                  \
extern "C" const char* nr_sample_backward_##name(                                                  \
    const int32_t* index, const T* weight, const T* grad_rgb, int64_t batch, int64_t count,        \
    int64_t pixels, int64_t cube, T* grad_textures, int64_t place, void* stream) {                 \
    return run(int(place), stream, [&](auto where) {                                               \
        sample_backward(index, weight, grad_rgb, batch, count, pixels, int(cube), grad_textures,   \
                        where);                                                                    \
    });                                                                                            \
}                                                                                                  \
extern "C" const char* nr_sweep_##name(                                                            \
    const T* faces, const int32_t* index, const T* depth, const T* image, const T* grad,           \
    int64_t batch, int64_t count, int64_t channels, int64_t size, int64_t perspective, double eps, \
    T* grad_faces, int64_t place, void* stream) {                                                  \
    const nr::View view = {int(size), int(perspective), 0, 0};                                     \
    return run(int(place), stream, [&](auto where) {                                               \
        sweep(faces, index, depth, image, grad, batch, count, int(channels), view, eps,            \
              grad_faces, where);                                                                  \
    });                                                                                            \
}

NR_INTERFACE(float, float32)
NR_INTERFACE(double, float64)
