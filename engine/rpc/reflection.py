"""Server reflection, v1 and v1alpha: what tools such as grpcurl, ghz and buf learn the API from.

grpcio-reflection serves v1alpha alone, and its look-up finds neither methods nor oneofs. The messages of both versions
are the same on the wire, so that one servicer answers for both.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import chain
from typing import Any

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

ALPHA_SERVICE_NAME: str = pb.DESCRIPTOR.services_by_name["ServerReflection"].full_name
SERVICE_NAME = ALPHA_SERVICE_NAME.replace("v1alpha", "v1")
# No service names them, but the details of an error are of these types.
_ERROR_FILES = (error_details_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR)


class UnknownName(LookupError):
    """No file of this index has it; the text says what was looked for."""


class FileIndex:
    """Finds files by all that they declare.

    Args:
        files: every one, with all that they import, an import before its importer.
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._files = {file.name: file for file in files}
        self._by_symbol: dict[str, str] = {}
        self._extended: dict[str, dict[int, str]] = {}
        for file in self._files.values():
            for symbol in _symbols(file):
                self._by_symbol[symbol] = file.name
            for extension in _extensions(file):
                self._extended.setdefault(extension.extendee.lstrip("."), {})[extension.number] = file.name
        self._messages = {name for file in self._files.values() for name, _ in _messages(file)}

    def by_name(self, name: str) -> list[FileDescriptorProto]:
        """The file and all that it imports, itself first. Raises UnknownName."""
        if name not in self._files:
            raise UnknownName(f"file {name!r} is not known to this server")
        found: dict[str, FileDescriptorProto] = {}
        open_names = [name]
        while open_names:
            file = self._files[open_names.pop()]
            found[file.name] = file
            open_names += [imported for imported in file.dependency if imported not in found]
        return list(found.values())

    def by_symbol(self, symbol: str) -> list[FileDescriptorProto]:
        """As by_name, of the file that declares the symbol, whatever its kind."""
        name = self._by_symbol.get(symbol)
        if name is None:
            raise UnknownName(f"symbol {symbol!r} is not known to this server")
        return self.by_name(name)

    def by_extension(self, message: str, number: int) -> list[FileDescriptorProto]:
        """As by_name, of the file that declares the extension."""
        name = self._extended.get(message, {}).get(number)
        if name is None:
            raise UnknownName(f"extension {number} of {message!r} is not known to this server")
        return self.by_name(name)

    def extension_numbers(self, message: str) -> list[int]:
        """Of all extensions of a message, ascending. Raises UnknownName where there is no such message."""
        if message not in self._messages:
            raise UnknownName(f"message {message!r} is not known to this server")
        return sorted(self._extended.get(message, {}))


class ReflectionServicer:
    """Answers a stream of questions, in their order.

    Args:
        service_names: what list_services tells.
    """

    def __init__(self, service_names: Iterable[str], index: FileIndex) -> None:
        self._services = [pb.ServiceResponse(name=name) for name in sorted(service_names)]
        self._index = index

    async def answers(self, requests: AsyncIterable[pb.ServerReflectionRequest], _: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield self._answer(request)

    def _answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            if kind == "file_by_filename":
                _put_files(response, self._index.by_name(request.file_by_filename))
            elif kind == "file_containing_symbol":
                _put_files(response, self._index.by_symbol(request.file_containing_symbol))
            elif kind == "file_containing_extension":
                extension = request.file_containing_extension
                files = self._index.by_extension(extension.containing_type, extension.extension_number)
                _put_files(response, files)
            elif kind == "all_extension_numbers_of_type":
                message = request.all_extension_numbers_of_type
                numbers = response.all_extension_numbers_response
                numbers.extension_number.extend(self._index.extension_numbers(message))
                numbers.base_type_name = message
            elif kind == "list_services":
                response.list_services_response.service.extend(self._services)
            else:
                _put_error(response, grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")
        except UnknownName as unknown:
            _put_error(response, grpc.StatusCode.NOT_FOUND, str(unknown))
        return response


def add_reflection(server: grpc.aio.Server, service_names: Iterable[str]) -> None:
    """Let clients learn these services, and reflection itself, from the server.

    Args:
        service_names: full ones, of services whose generated code is imported.
    """
    pool = descriptor_pool.Default()
    files = [*_ERROR_FILES, *(pool.FindServiceByName(name).file for name in service_names), pb.DESCRIPTOR]
    index = FileIndex([*with_imports(files), _reflection_v1()])
    names = (SERVICE_NAME, ALPHA_SERVICE_NAME)
    servicer = ReflectionServicer([*service_names, *names], index)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.answers,
        request_deserializer=pb.ServerReflectionRequest.FromString,
        response_serializer=pb.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in names)
    )


def with_imports(files: Iterable[FileDescriptor]) -> Iterator[FileDescriptorProto]:
    """The files and all that they import, each once, an import before its importer."""
    seen: set[str] = set()

    def walk(file: FileDescriptor) -> Iterator[FileDescriptorProto]:
        if file.name in seen:
            return
        seen.add(file.name)
        for imported in file.dependencies:
            yield from walk(imported)
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        yield proto

    for file in files:
        yield from walk(file)


def _reflection_v1() -> FileDescriptorProto:
    """The file of v1, which differs from that of v1alpha by the package alone."""
    alpha = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(alpha)
    text: str = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    file: FileDescriptorProto = text_format.Parse(text, FileDescriptorProto())
    file.options.ClearField("deprecated")
    return file


def _put_files(response: pb.ServerReflectionResponse, files: Iterable[FileDescriptorProto]) -> None:
    response.file_descriptor_response.file_descriptor_proto.extend(file.SerializeToString() for file in files)


def _put_error(response: pb.ServerReflectionResponse, code: grpc.StatusCode, text: str) -> None:
    response.error_response.error_code = code.value[0]
    response.error_response.error_message = text


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """The full name of everything that a file declares."""
    scope = _scope(file.package)
    yield from _enum_symbols(scope, file.enum_type)
    yield from (scope + extension.name for extension in file.extension)
    for service in file.service:
        yield scope + service.name
        yield from (f"{scope}{service.name}.{method.name}" for method in service.method)
    for name, message in _messages(file):
        yield name
        yield from (f"{name}.{field.name}" for field in chain(message.field, message.extension))
        yield from (f"{name}.{oneof.name}" for oneof in message.oneof_decl)
        yield from _enum_symbols(f"{name}.", message.enum_type)


def _enum_symbols(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    for enum in enums:
        yield scope + enum.name
        # By protobuf's rule a value is a sibling of its enum; some tools look for it as a member.
        for value in enum.value:
            yield scope + value.name
            yield f"{scope}{enum.name}.{value.name}"


def _messages(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    """Every message with its full name, nested ones as well."""
    scope = _scope(file.package)
    pending = [(scope + message.name, message) for message in file.message_type]
    while pending:
        name, message = pending.pop()
        yield name, message
        pending += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]


def _extensions(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from file.extension
    for _, message in _messages(file):
        yield from message.extension


def _scope(package: str) -> str:
    return f"{package}." if package else ""
