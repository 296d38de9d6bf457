"""A model server that speaks gRPC and nothing else; lies in the test store as a model's file."""

import os
from concurrent import futures

import grpc


class Model(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method != "/model/Say":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda message, _: b"said " + message)


server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Model(),))
server.add_insecure_port(f"{os.environ['HOST']}:8080")
server.start()
server.wait_for_termination()
