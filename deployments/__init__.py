"""All that runs on Ray Serve: the composition root, the deployments and the protocols that travel over the wire.

The only package that imports ray, starlette or grpc. Ask it to build and serve the application.
"""
