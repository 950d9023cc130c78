/* The C entry points of TensorRT that its Python bindings call, handed on to TensorRT-RTX, which builds engines on a
 * machine without a GPU.  Compiled once under the name of each library that the bindings ask for, with the file names of
 * RTX's two libraries, which lie beside it, as BUILDER and PARSER.
 *
 * The bindings tell the version they were made for, which RTX would refuse: each library is told its own instead.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef void *object;

static object symbol(const char *library, const char *name) {
    object opened = dlopen(library, RTLD_NOW | RTLD_GLOBAL), found = opened ? dlsym(opened, name) : NULL;
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        abort();
    }
    return found;
}

static int32_t version(const char *library, const char *name) {
    return ((int32_t(*)(void))symbol(library, name))();
}

#define BUILDER_VERSION version(BUILDER, "getInferLibVersion")
#define PARSER_VERSION version(PARSER, "getNvOnnxParserVersion")

#define MAKE_OF_ONE(name, library, its_version)                                                                        \
    object name(object first, int32_t asked) {                                                                         \
        (void)asked;                                                                                                   \
        return ((object(*)(object, int32_t))symbol(library, #name))(first, its_version);                               \
    }
#define MAKE_OF_TWO(name, library, its_version)                                                                        \
    object name(object first, object second, int32_t asked) {                                                          \
        (void)asked;                                                                                                   \
        return ((object(*)(object, object, int32_t))symbol(library, #name))(first, second, its_version);               \
    }

MAKE_OF_ONE(createInferBuilder_INTERNAL, BUILDER, BUILDER_VERSION)
MAKE_OF_ONE(createInferRuntime_INTERNAL, BUILDER, BUILDER_VERSION)
MAKE_OF_TWO(createInferRefitter_INTERNAL, BUILDER, BUILDER_VERSION)
MAKE_OF_TWO(createNvOnnxParser_INTERNAL, PARSER, PARSER_VERSION)
MAKE_OF_TWO(createNvOnnxParserRefitter_INTERNAL, PARSER, PARSER_VERSION)

int32_t getNvOnnxParserVersion(void) { return PARSER_VERSION; }

object getPluginRegistry(void) { return ((object(*)(void))symbol(BUILDER, "getPluginRegistry"))(); }

object getBuilderPluginRegistry(int32_t capability) {
    return ((object(*)(int32_t))symbol(BUILDER, "getBuilderPluginRegistry"))(capability);
}

uint8_t initLibNvInferPlugins(object logger, const char *space) { /* RTX has no plugins */
    (void)logger;
    (void)space;
    return 1;
}
