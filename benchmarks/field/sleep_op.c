/* An operator for ONNX Runtime that sleeps, as a device would work: the core is free meanwhile.
 *
 * Domain "bench", operator Sleep(x: float) -> zero: float[1], attribute `microseconds`. Any model becomes a slow device
 * by adding `zero` to its output. Declares only what it uses of the C interface, which only ever grows at its end;
 * the numbers are places in OrtApi. Build: cc -O2 -shared -fPIC -o libsleep.so sleep_op.c */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { API_VERSION = 13, ELEMENT_FLOAT = 1, ARGUMENT_REQUIRED = 0, MEMORY_DEFAULT = 0 };
enum {
  CREATE_DOMAIN = 26,
  DOMAIN_ADD = 27,
  OPTIONS_ADD_DOMAIN = 28,
  TENSOR_DATA = 51,
  ATTRIBUTE_INT64 = 86,
  CONTEXT_OUTPUT = 91
};

typedef void *Api[];
typedef struct {
  Api *(*get_api)(uint32_t version);
} ApiBase;

typedef struct Operator {
  uint32_t version;
  void *(*create)(const struct Operator *, Api *, const void *info);
  const char *(*name)(const struct Operator *);
  const char *(*provider)(const struct Operator *);
  int (*input_type)(const struct Operator *, size_t);
  size_t (*input_count)(const struct Operator *);
  int (*output_type)(const struct Operator *, size_t);
  size_t (*output_count)(const struct Operator *);
  void (*compute)(void *kernel, void *context);
  void (*destroy)(void *kernel);
  int (*input_characteristic)(const struct Operator *, size_t);
  int (*output_characteristic)(const struct Operator *, size_t);
  int (*input_memory)(const struct Operator *, size_t);
  void *newer[16];
} Operator;

typedef struct {
  Api *api;
  int64_t microseconds;
} Kernel;

static void *create(const Operator *self, Api *api, const void *info) {
  (void)self;
  Kernel *kernel = calloc(1, sizeof *kernel);
  kernel->api = api;
  ((void *(*)(const void *, const char *, int64_t *))(*api)[ATTRIBUTE_INT64])(info, "microseconds",
                                                                               &kernel->microseconds);
  return kernel;
}

static void compute(void *given, void *context) {
  Kernel *kernel = given;
  struct timespec left = {kernel->microseconds / 1000000, kernel->microseconds % 1000000 * 1000};
  while (nanosleep(&left, &left)) {
  }
  const int64_t shape[] = {1};
  void *output = NULL;
  float *data = NULL;
  Api *api = kernel->api;
  ((void *(*)(void *, size_t, const int64_t *, size_t, void **))(*api)[CONTEXT_OUTPUT])(context, 0, shape, 1, &output);
  ((void *(*)(void *, void **))(*api)[TENSOR_DATA])(output, (void **)&data);
  *data = 0;
}

static const char *name(const Operator *self) {
  (void)self;
  return "Sleep";
}

static const char *provider(const Operator *self) {
  (void)self;
  return NULL;
}

static int type(const Operator *self, size_t index) {
  (void)self;
  (void)index;
  return ELEMENT_FLOAT;
}

static int characteristic(const Operator *self, size_t index) {
  (void)self;
  (void)index;
  return ARGUMENT_REQUIRED;
}

static int memory(const Operator *self, size_t index) {
  (void)self;
  (void)index;
  return MEMORY_DEFAULT;
}

static size_t one(const Operator *self) {
  (void)self;
  return 1;
}

static const Operator SLEEP = {
    API_VERSION, create, name, provider, type,           one,            type,
    one,         compute, free, characteristic, characteristic, memory, {NULL},
};

void *RegisterCustomOps(void *options, const ApiBase *base) {
  Api *api = base->get_api(API_VERSION);
  void *domain = NULL;
  void *status = ((void *(*)(const char *, void **))(*api)[CREATE_DOMAIN])("bench", &domain);
  if (!status) status = ((void *(*)(void *, const Operator *))(*api)[DOMAIN_ADD])(domain, &SLEEP);
  if (!status) status = ((void *(*)(void *, void *))(*api)[OPTIONS_ADD_DOMAIN])(options, domain);
  return status;
}
