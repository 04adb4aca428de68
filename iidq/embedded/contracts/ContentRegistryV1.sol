// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// @title ContentRegistry, the first layout, as it stands on chains since then
/// @notice Who registered which content, when, and where the manifest lies.
/// @dev `entries` returns (creator, contentHash, manifestURI, timestamp): the third word of its reply is 0x80.
contract ContentRegistryV1 {
    struct Entry {
        address creator;
        bytes32 contentHash;
        string manifestURI;
        uint64 timestamp;
    }

    /// @notice The entry of a SHA-256 content hash; `creator` is zero where nothing is registered.
    mapping(bytes32 contentHash => Entry entry) public entries;

    event ContentRegistered(
        bytes32 indexed contentHash, address indexed creator, string manifestURI, uint64 timestamp
    );
    event ManifestUpdated(bytes32 indexed contentHash, string manifestURI, uint64 timestamp);
    event EntryRevoked(bytes32 indexed contentHash, uint64 timestamp);

    /// @notice Registers content for the sender, once and for all: nobody can register it again.
    function register(bytes32 contentHash, string calldata manifestURI) external {
        require(entries[contentHash].creator == address(0), "already registered");
        uint64 timestamp = uint64(block.timestamp);
        entries[contentHash] = Entry(msg.sender, contentHash, manifestURI, timestamp);
        emit ContentRegistered(contentHash, msg.sender, manifestURI, timestamp);
    }

    /// @notice Points to another manifest. The time of registration stays.
    function updateManifest(bytes32 contentHash, string calldata manifestURI) external {
        require(entries[contentHash].creator == msg.sender, "not the creator");
        entries[contentHash].manifestURI = manifestURI;
        emit ManifestUpdated(contentHash, manifestURI, uint64(block.timestamp));
    }

    /// @notice Empties the manifest URI. The creator and the time of registration stay.
    function revoke(bytes32 contentHash) external {
        require(entries[contentHash].creator == msg.sender, "not the creator");
        entries[contentHash].manifestURI = "";
        emit EntryRevoked(contentHash, uint64(block.timestamp));
    }
}
